"""A site's own connector for mq-gateway."""
