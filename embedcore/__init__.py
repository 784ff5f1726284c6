"""embedcore: which pretrained backbone embeds my images best, how fast, and did the last upgrade break it?"""
