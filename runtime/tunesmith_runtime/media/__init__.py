"""Pictures and sounds: which files are pictures, the pixels of a picture, the samples of a sound.

Training, evaluation and serving read them with this code.
"""
