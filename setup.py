"""Package metadata of dbn; pyproject.toml holds only the build system and the settings of tools."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent

# Read, not imported: importing dbn would need TensorFlow where the package is only being built.
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "dbn/__init__.py").read_text(), re.M)[1]

setup(
    name="dbn",
    version=VERSION,
    description="Deep belief networks and restricted Boltzmann machines on TensorFlow and Keras 3",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=["dbn", "dbn.layers"],
    # A top-level module `layers` would be hijacked by any layers.py beside a user's notebook.
    package_dir={"dbn": "dbn", "dbn.layers": "layers"},
    package_data={"dbn": ["py.typed"], "dbn.layers": ["py.typed"]},
    python_requires=">=3.11",  # Keras 3.15 asks for it
    # Lower bounds are the versions that the tests have seen.
    install_requires=[
        "tensorflow>=2.21",
        "keras>=3.15",
        "matplotlib>=3.11",  # the curves that recipes draw
        "numpy>=2.4",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources>=7.1",  # imported, but not declared, by tensorflow-datasets 4.9.10
        "pillow>=13.0",
        "requests>=2.34",
        "scikit-learn>=1.9",  # its embedded digits are the data set of a machine that is offline
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21"],
        # setuptools: tests/test_packaging.py builds the wheel without a network.
        "test": [
            "hypothesis>=6.170",
            "pytest>=9.2",
            "pytest-xdist>=3.8",
            "ruff>=0.17",
            "setuptools>=84.2",
        ],
        "benchmark": ["torch>=2.13", "psutil>=7.2"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
