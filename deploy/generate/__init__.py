"""Makes the files of `deploy/` that follow from others; a test says when they no longer do (`make deploy-files`)."""
