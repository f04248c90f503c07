"""Have we answered this already?"""
