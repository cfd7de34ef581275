"""Packaging of QMA-Net: metadata here, tools' settings in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# What stands beside the package in the repository and travels inside it: the configurations
# for BenCo as qma_net/benco_configs, the scripts as qma_net/shell; not those that make their
# environment from the checkout around them.
TRAVELLERS = {"qma_net.benco_configs": "benco_configs", "qma_net.shell": "shell"}

setup(
    name="qma-net",
    version=re.search(r'__version__ = "(.+)"', (HERE / "qma_net/__init__.py").read_text())[1],
    description="QMA-Net: image manipulation localization, for IMDL-BenCo and on its own",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The QMA-Net developers",
    keywords="image forensics, image manipulation localization, IMDL-BenCo, PyTorch",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["qma_net", "qma_net.*"]), *TRAVELLERS],
    package_dir=TRAVELLERS,
    package_data={
        "qma_net.benco_configs": ["*"],
        "qma_net.shell": ["*"],
        "qma_net.weights": ["qma-net-small/*"],
        "qma_net.web": ["style.css", "viewer.css", "viewer.js"],
    },
    exclude_package_data={
        "qma_net.shell": ["demo.sh", "endurance.sh", "env.sh", "evidence.sh", "test.sh"]
    },
    # Bounded above where a major release may break us; constraints/ has the versions tested.
    install_requires=[
        "huggingface_hub>=1,<3",
        "numpy<3",
        "opencv-python-headless<6",
        "pillow>=11.3,<15",  # from there on it reads AVIF
        "safetensors<1",
        "torch>=2.9,<3",
        "tqdm",
        "transformers>=5.10,<6",
    ],
    extras_require={
        # imdlbenco forces numpy < 2, which pip could only build from source on Python 3.13, and
        # does not declare requests, torch and torchvision.
        "benco": [
            f"{needed}; python_version < '3.13'"
            for needed in ("imdlbenco==0.1.45", "requests<3", "torch", "torchvision")
        ],
        # Photographs to practise on, and pictures of the results.
        "demo": ["matplotlib<4", "scikit-image<1", "scikit-learn<2"],
        "export": ["onnx<2", "onnxruntime<2", "onnxscript<1"],
        # Photographs as iPhones save them, HEIC.
        "heif": ["pillow-heif<2"],
        # The figures of `qma-net report`. Before 1.5.7 grad-cam asks for opencv-python, which
        # overwrites the files of opencv-python-headless.
        "report": ["grad-cam>=1.5.7,<2", "matplotlib<4"],
        # The page of `qma-net serve`, and photographs to try it with.
        "web": ["gradio>=6.31,<7", "scikit-image<1"],
        "dev": ["build", "hypothesis<7", "playwright<2", "pytest", "pytest-xdist", "ruff"],
    },
    entry_points={"console_scripts": ["qma-net = qma_net.cli:main"]},
)
