"""Adapters to other libraries: captum, Quantus, and tables as scikit-learn knows them.

Each module is imported by itself, and needs its library.
"""
