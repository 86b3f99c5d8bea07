"""Faithfulness: does the score change where the map says?"""
