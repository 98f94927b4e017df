"""Print pip constraints that pin the core dependencies to their lower bounds in setup.cfg."""

import configparser
import re

config = configparser.ConfigParser()
config.read("setup.cfg")
for line in config["options"]["install_requires"].split("\n"):
    if found := re.match(r"([\w.-]+)>=([\w.]+)", line):
        print(f"{found[1]}=={found[2]}")
