"""HTTP and nothing else: paths, headers, status numbers. What a request means is the gateway's business."""
