"""Bridges to other frameworks' habits; each module needs its framework, and nothing here imports one."""
