"""What the process tells its operators. Labels come from closed sets, logs never carry bodies."""
