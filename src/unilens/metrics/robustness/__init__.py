"""Robustness: does the map stay while the prediction does?"""
