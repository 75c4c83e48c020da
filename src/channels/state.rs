//! What outlives the process: named files in the one directory that is ours.
//!
//! A file is there whole or not at all: it is written beside, and renamed. One that would not differ is not written, which
//! spares the memory card of a small box. It must not know what the files hold.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Lists have passwords in their addresses: nobody but us and our group reads them.
const MODE: u32 = 0o640;

/// Where files are kept; or nowhere, which makes everything work and nothing last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDir(Option<PathBuf>);

impl StateDir {
    /// This directory, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or is something else.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(Some(path.to_owned())))
    }

    /// Whether what is written lasts.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.0.is_some()
    }

    /// The file of this name, at most `max_bytes` of it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read, or is larger.
    pub fn read(&self, name: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(max_bytes + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max_bytes {
            return Err(io::Error::other("it is larger than it can be"));
        }
        Ok(Some(bytes))
    }

    /// The file of this name, opened for reading; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be opened.
    pub fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        let Some(path) = self.path(name) else { return Ok(None) };
        match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes these bytes the file of this name, unless they are that already.
    ///
    /// # Errors
    ///
    /// When they cannot be written; what was there before is there still.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if !self.is_lasting() || self.has(name, bytes) {
            return Ok(());
        }
        self.replace(name, |file| file.write_all(bytes))
    }

    /// Makes what `write` writes the file of this name; for what is too large to be held.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or `write` fails; what was there before is there still.
    pub fn replace(&self, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let Some(path) = self.path(name) else { return Ok(()) };
        let beside = self.path(&format!("{name}.new")).unwrap_or_default();
        let written = (|| {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(MODE).open(&beside)?;
            write(&mut file)?;
            file.flush()?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        })();
        if written.is_err() {
            // Whatever is wrong, it is told by the first error.
            let _removed = fs::remove_file(&beside);
        }
        written
    }

    /// Removes the files whose names `is_old` tells; what cannot be removed stays.
    pub fn remove_where(&self, is_old: impl Fn(&str) -> bool) {
        let Some(entries) = self.0.as_ref().and_then(|directory| fs::read_dir(directory).ok()) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(&is_old) {
                let _removed = fs::remove_file(entry.path());
            }
        }
    }

    fn has(&self, name: &str, bytes: &[u8]) -> bool {
        let Ok(Some(mut file)) = self.open_file(name) else { return false };
        let length = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
        if length != bytes.len() as u64 || file.rewind().is_err() {
            return false;
        }
        let mut rest = bytes;
        let mut buffer = [0; 16 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return rest.is_empty(),
                Ok(read) if rest.get(..read) == Some(&buffer[..read]) => rest = &rest[read..],
                _ => return false,
            }
        }
    }

    /// Where a file of this name is. A name is ours: letters, digits, dots and dashes.
    fn path(&self, name: &str) -> Option<PathBuf> {
        debug_assert!(!name.contains('/'), "a name leads nowhere else");
        self.0.as_ref().map(|directory| directory.join(name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("acerelay-{name}-{}", std::process::id()));
            let _cleared = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _removed = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_comes_back_and_is_written_only_when_it_differs() {
        let scratch = Scratch::new("state");
        let state = StateDir::open(&scratch.0.join("a/b")).expect("a directory");
        assert_eq!(state.read("list", 10).expect("no file is no error"), None);
        state.write("list", b"one").expect("room");
        assert_eq!(state.read("list", 10).expect("it is there"), Some(b"one".to_vec()));
        let inode = || fs::metadata(scratch.0.join("a/b/list")).expect("it is there");
        let before = inode().ino();
        state.write("list", b"one").expect("nothing to do");
        assert_eq!(inode().ino(), before, "the same bytes are not written again");
        state.write("list", b"two").expect("room");
        assert_ne!(inode().ino(), before);
        assert_eq!(inode().permissions().mode() & 0o777, 0o640);
        assert!(state.read("list", 2).is_err(), "larger than it can be");
        assert!(state.replace("list", |_| Err(io::Error::other("no"))).is_err());
        assert_eq!(state.read("list", 3).expect("what was there"), Some(b"two".to_vec()));
        state.remove_where(|name| name == "list");
        assert_eq!(state.read("list", 3).expect("gone"), None);
    }

    #[test]
    fn without_a_directory_nothing_lasts_and_nothing_fails() {
        let state = StateDir::default();
        state.write("list", b"one").expect("nowhere to write is fine");
        assert_eq!(state.read("list", 10).expect("nothing"), None);
        assert!(!state.is_lasting());
    }
}
