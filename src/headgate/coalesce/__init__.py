"""Is somebody being answered this already?"""
