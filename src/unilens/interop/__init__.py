"""Adapters to other libraries: captum and Quantus.

Each module is imported by itself, and needs its library.
"""
