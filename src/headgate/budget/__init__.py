"""Can they afford it?"""
