"""Sanity: does the map depend on the model and on the class?"""
