"""Who asks, and what they may: credentials, policy, sessions, and how much at once."""
