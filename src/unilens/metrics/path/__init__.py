"""The path: is the way from the baseline to the input to be trusted?"""
