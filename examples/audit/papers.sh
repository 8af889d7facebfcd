# What goes with the program: a note on where it comes from, and its texts in one archive.
set -eu
mkdir -p papers
cat > text/ORIGIN <<END
greet 1.0
built on $(uname -n) at $(date -u +%Y-%m-%dT%H:%M:%SZ)
END
tar -c text | gzip > papers/text.tar.gz
