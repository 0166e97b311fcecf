"""mq-gateway: an HTTP-to-STOMP gateway with DIRAC's message-queue vocabulary."""
