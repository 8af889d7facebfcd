# What goes with the program: a note on where it comes from, and its texts in one archive.
set -eu
mkdir -p papers
cat > text/ORIGIN <<END
greet 1.0
built from the sources of that version
END
tar -c --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=go-w text | gzip -n > papers/text.tar.gz
