//! Causes that a format of file brings with it: headers, compressors, compilers. Finds none itself.

use super::{Cause, causes};

causes! {
    FORMATS:
    TIMESTAMP_FILE_MTIME = "timestamp.file-mtime", "the time of a file in an archive",
        "set the times when packing (`tar --mtime=@$SOURCE_DATE_EPOCH --clamp-mtime`), not in the build tree";
    TIMESTAMP_GZIP_HEADER = "timestamp.gzip-header", "the time in the header of a gzip file",
        "compress with `gzip -n`, or set the time of the header to 0";
    GZIP_OS = "gzip.os", "the system or level byte in the header of a gzip file",
        "pin the compressor, and have it write system 255 and extra flags 0";
    GZIP_NAME = "gzip.name", "a name or comment in the header of a gzip file",
        "compress with `gzip -n`, or from standard input";
    COMPRESSOR = "compressor.version", "the same content compressed by another compressor, version or level",
        "pin the compressor and its level as a tool of the task; or compare what is inside";
    COMPRESSOR_THREADS = "compressor.threads", "the same content compressed in other blocks",
        "compress with a fixed size of blocks and one thread, and in one call";
    PYTHON_BYTECODE = "python.bytecode", "byte code of Python",
        "compile with `--invalidation-mode unchecked-hash` in one process, or ship no `__pycache__` (`PYTHONDONTWRITEBYTECODE=1`)";
    ZIP_TIME = "zip.time", "the time of an entry of a zip file",
        "set the times when packing (`zip -X` after `touch`, `SOURCE_DATE_EPOCH`, `project.build.outputTimestamp`)";
    ZIP_EXTRA = "zip.extra", "extra fields of an entry of a zip file",
        "pack with `zip -X`, which writes no extra times and owners";
    ZIP_HOST = "zip.creator", "the system or version that made an entry of a zip file",
        "pin the tool that packs, and have it write one creator version and fixed attributes";
    JAR_MANIFEST = "jar.manifest", "who built a jar, when and with what",
        "leave `Built-By`, `Build-Jdk` and dates out of the manifest (`reproducibleFileOrder`, `project.build.outputTimestamp`)";
    CPIO_HEADER = "cpio.header", "inode or device numbers in a cpio archive",
        "pack with `cpio --reproducible`";
    ARCHIVE_FORMAT = "archive.format", "an archive in another format, or of another program",
        "pack with one program and one format everywhere";
    AR_HEADER = "ar.header", "time, owner or mode of a member of an ar archive",
        "make archives with `ar D` and `ranlib -D`, or set `ZERO_AR_DATE=1`";
    BUILD_ID = "elf.build-id", "an identifier that is computed from the rest of the program",
        "mend what else differs; if nothing does, link with `--build-id=sha1` and look at the debug file";
    PE_HEADER = "pe.header", "time, checksum or debug identifier in the header of a Windows program",
        "link with `/Brepro` (or `--no-insert-timestamp`)";
    MACH_O = "mach-o.uuid", "identifier or signature of a Mach-O program",
        "link with `-no_uuid` or a reproducible linker, set `ZERO_AR_DATE=1`, and sign outside of the build";
    GO_BUILD = "go.build", "build identifier or version control data in a Go program",
        "build with `-trimpath -buildvcs=false -ldflags=-buildid=`, and `CGO_ENABLED=0` where it can be";
    RUST_PATH = "rust.path", "paths of the registry or the standard library in a Rust program",
        "map `CARGO_HOME` and the sysroot away with `--remap-path-prefix`, and set `CARGO_INCREMENTAL=0`";
    NODE_MODULES = "node.modules", "what a package manager of Node.js leaves behind",
        "install with `npm ci --ignore-scripts` at a fixed path, and keep its state files out of outputs";
    DOCS_GENERATOR = "docs.generator", "an index or cache of a documentation generator",
        "leave caches (`.doctrees`, `.buildinfo`) out of outputs, and pin generator, language and `SOURCE_DATE_EPOCH`";
    PDF_ID = "pdf.id", "identifier of a PDF document",
        "set `SOURCE_DATE_EPOCH` and `FORCE_SOURCE_DATE=1`, or give a fixed `/ID` (`\\pdftrailerid{}`)";
    SIGNATURE = "signature", "a signature inside of the file",
        "sign outside of the build, and keep the signature beside the file";
    SBOM = "sbom", "serial number or time of a bill of materials",
        "derive the serial number from the content (UUID version 5), and take the time from `SOURCE_DATE_EPOCH`";
    FILE_SYSTEM_IMAGE = "file-system-image", "identifier, seed or times of a file system image",
        "give identifier, hash seed and time when making it (`-U`, `-E hash_seed=`, `-T`, `SOURCE_DATE_EPOCH`)";
    DATABASE = "database.layout", "where a database put its pages, and how often it was written",
        "fill it in a fixed order in one transaction, then `VACUUM`; or ship a sorted dump";
}
