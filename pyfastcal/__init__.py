"""pyfastcal: trustworthy confidences for CLIP, at any scale."""
