"""Predictions of a trained model, and exports that run without this project.

====================  ==========================================================="""
