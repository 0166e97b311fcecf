"""Pure codecs: values in, bytes out, and back. No I/O, no configuration."""
