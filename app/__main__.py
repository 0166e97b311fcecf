"""`python -m app` is `mq-gateway`."""

from app.cli import main

if __name__ == "__main__":
    main()
