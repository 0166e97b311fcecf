"""HTTP/1.1 on the socket: uvicorn's httptools protocol, made strict, bounded and impatient."""
