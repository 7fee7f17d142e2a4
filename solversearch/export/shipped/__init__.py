"""What exports copy, each file together with solversearch's runtime.py in place of the one here.

`k_diffusion` and `comfyui` become the __init__.py of the folder that they are copied into, and `numpy_plan` the end of a file:
they need the plan that lies there, and cannot be imported here.
"""
