"""Where should it go?"""
