"""Recipes: the settings of published trainings by name, each value with where it comes from.

A recipe is a YAML file, read by `recipe.py`. Those of this folder come with the toolkit; a plugin brings more by the
hook `dipp_register_recipes`.
"""
