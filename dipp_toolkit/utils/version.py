"""The version of the toolkit, in one place: the build, the package and every record of a run read it here."""

VERSION = "0.1.0"
