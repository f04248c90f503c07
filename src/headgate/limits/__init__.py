"""May they call now?"""
