//! What the image holds, and that it runs from nothing else: no shell, no libraries, not as root,
//! nothing writable but its volumes.

use std::{
    collections::BTreeMap,
    fs::Permissions,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use tidegate_tests::eventually;
use tokio::process::Command;

use super::{
    file,
    jail::{Jail, USER, as_root},
};

/// Runs the script that the Dockerfile runs, with the profile of the tests.
pub(crate) async fn lay_out(root: &Path) {
    let mut script = Command::new(file("deploy/rootfs.sh"));
    script.arg("dev").arg(root);
    // What the outer cargo tells its tests would make the inner one build dependencies anew.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_")) {
            script.env_remove(name);
        }
    }
    let output = script.output().await.expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Everything below `folder`: path to kind and mode, and owner.
fn listing(folder: &Path, prefix: &str, found: &mut BTreeMap<String, (u32, u32)>) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let entry = entry.expect("readable");
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        let about = entry.path().symlink_metadata().expect("there");
        found.insert(path.clone(), (about.mode(), about.uid()));
        if about.is_dir() {
            listing(&entry.path(), &path, found);
        }
    }
}

#[tokio::test]
async fn the_image_holds_one_static_binary_certificates_and_two_empty_folders() {
    const FILE: u32 = 0o100_000;
    const FOLDER: u32 = 0o040_000;
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    lay_out(&root).await;
    let own = std::fs::metadata(folder.path()).expect("there").uid();
    let user = if as_root() { USER } else { own };
    let mut found = BTreeMap::new();
    listing(&root, "", &mut found);
    let expected = [
        ("/data", FOLDER | 0o700, user),
        ("/etc", FOLDER | 0o755, own),
        ("/etc/group", FILE | 0o644, own),
        ("/etc/nsswitch.conf", FILE | 0o644, own),
        ("/etc/passwd", FILE | 0o644, own),
        ("/etc/ssl", FOLDER | 0o755, own),
        ("/etc/ssl/certs", FOLDER | 0o755, own),
        ("/etc/ssl/certs/ca-certificates.crt", FILE | 0o644, own),
        ("/etc/tidegate", FOLDER | 0o755, own),
        ("/tidegate", FILE | 0o755, own),
        ("/tmp", FOLDER | 0o1777, user),
    ];
    let expected: BTreeMap<String, (u32, u32)> =
        expected.into_iter().map(|(path, mode, uid)| (path.to_owned(), (mode, uid))).collect();
    assert_eq!(found, expected);

    let binary = std::fs::read(root.join("tidegate")).expect("readable");
    assert_eq!(interpreter_and_libraries(&binary), (false, 0), "it is not static");
    let certificates =
        std::fs::read_to_string(root.join("etc/ssl/certs/ca-certificates.crt")).expect("text");
    assert!(certificates.matches("BEGIN CERTIFICATE").count() > 50);
    let passwd = std::fs::read_to_string(root.join("etc/passwd")).expect("text");
    assert!(passwd.starts_with(&format!("tidegate:x:{USER}:{USER}:")), "{passwd}");
}

/// Whether an ELF file (System V ABI, 64 bits, little-endian) names an interpreter, and how many
/// libraries it needs.
fn interpreter_and_libraries(elf: &[u8]) -> (bool, usize) {
    const PT_DYNAMIC: u64 = 2;
    const PT_INTERP: u64 = 3;
    const DT_NEEDED: u64 = 1;
    let number = |at: u64, bytes: usize| {
        let at = usize::try_from(at).expect("within the file");
        let mut padded = [0; 8];
        padded[..bytes].copy_from_slice(&elf[at..at + bytes]);
        u64::from_le_bytes(padded)
    };
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "not a 64-bit little-endian ELF file");
    let (first, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    let (mut interpreter, mut libraries) = (false, 0);
    for header in (0..count).map(|n| first + n * size) {
        interpreter |= number(header, 4) == PT_INTERP;
        if number(header, 4) == PT_DYNAMIC {
            let (offset, length) = (number(header + 8, 8), number(header + 32, 8));
            let entries = (offset..offset + length).step_by(16);
            libraries += entries.filter(|entry| number(*entry, 8) == DT_NEEDED).count();
        }
    }
    (interpreter, libraries)
}

#[tokio::test]
async fn a_binary_that_is_not_static_is_told_from_one_that_is() {
    let own = std::fs::read(std::env::current_exe().expect("a path")).expect("readable");
    let (interpreter, libraries) = interpreter_and_libraries(&own);
    assert!(interpreter && libraries > 0);
}

#[tokio::test]
async fn the_dockerfile_says_what_the_manifests_and_the_script_say() {
    let dockerfile = std::fs::read_to_string(file("deploy/Dockerfile")).expect("text");
    let has = |line: &str| assert!(dockerfile.lines().any(|l| l == line), "no line `{line}`");
    has(&format!("USER {USER}:{USER}"));
    has("    deploy/rootfs.sh release /rootfs");
    has("COPY --from=build /rootfs /");
    has("ENTRYPOINT [\"/tidegate\"]");
    has("CMD [\"run\", \"-c\", \"/etc/tidegate\"]");
    has("EXPOSE 8080 9090");
    let stages: Vec<&str> = dockerfile.lines().filter(|l| l.starts_with("FROM ")).collect();
    assert_eq!(stages.len(), 2, "{stages:?}");
    assert!(stages[0].starts_with("FROM rust:1.") && stages[1] == "FROM scratch", "{stages:?}");
}

#[tokio::test]
async fn nothing_can_be_written_but_the_volumes() {
    let config = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(config.path(), Permissions::from_mode(0o755)).expect("ours");
    let yaml = "broker: { embedded: {} }\n";
    std::fs::write(config.path().join("gateway.yaml"), yaml).expect("writable");
    let jail = Jail::new(&[(config.path(), "/etc/tidegate")]).await;
    for path in ["/etc/tidegate.db", "/tidegate.db", "/etc/ssl/certs/tidegate.db"] {
        let mut run = jail.command(&["run", "-c", "/etc/tidegate"]);
        let output = run.env("TIDEGATE__QUEUE__SQLITE__PATH", path).output().await.expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{path}: {said}");
        assert!(said.contains(path), "{path}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_is_found_by_dns_and_believed_by_the_images_own_certificates_and_no_others() {
    const IN_TIME: std::time::Duration = std::time::Duration::from_secs(60);
    let names = ["partner.test", "stranger.test"].map(str::to_owned);
    let [partner, stranger] = names
        .map(|name| rcgen::generate_simple_self_signed([name]).expect("a certificate for a name"));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
    let pem = |name: &str, pem: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).expect("writable");
        path
    };
    let trusted = pem("trusted.pem", partner.cert.pem());
    let both = |key: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        key.cert.pem() + &key.signing_key.serialize_pem()
    };
    let (partner, stranger) = (pem("partner.pem", both(&partner)), pem("s.pem", both(&stranger)));
    let config = folder.path().join("config");
    std::fs::create_dir(&config).expect("new");
    let mock = "apis: { api: { listen: '127.0.0.1:9102' } }\n";
    std::fs::write(config.join("mock"), mock).expect("writable");
    let yaml = "
broker: { embedded: {} }
upstreams:
  partner: { url: 'https://partner.test:9443', egress: { allow: [10.0.0.0/8] } }
  stranger: { url: 'https://stranger.test:9444', egress: { allow: [10.0.0.0/8] } }
routes:
  to-partner:
    from: { rabbitmq: { bind: [{ exchange: all, key: '#' }] } }
    to: { http: { upstream: partner, path: / } }
  to-stranger:
    from: { rabbitmq: { bind: [{ exchange: all, key: '#' }] } }
    to: { http: { upstream: stranger, path: / } }
";
    std::fs::write(config.join("gateway.yaml"), yaml).expect("writable");
    let certificates = "/etc/ssl/certs/ca-certificates.crt";
    let mounts: [(&Path, &str); 2] = [(&config, "/etc/tidegate"), (&trusted, certificates)];
    let mut jail = Jail::new(&mounts).await;
    let ports = [("9443", partner), ("9444", stranger)];
    let ports = ports.map(|(port, pem)| format!("{port}=9102={}", pem.display()));
    jail.join("partner.test,stranger.test", &[&ports[0], &ports[1]]).await;
    let _mock = jail.command(&["mock", "-c", "/etc/tidegate/mock"]).spawn().expect("it starts");
    let _gateway = jail.command(&["run", "-c", "/etc/tidegate"]).spawn().expect("it starts");
    eventually("an event is taken", IN_TIME, || async {
        jail.run(&["emit", "t", "--exchange", "all"]).await.status.success().then_some(())
    })
    .await;
    let has = async |route: &str, line: &str| {
        let url = "http://127.0.0.1:9090/metrics";
        let (status, page) = jail.get(url, None).await;
        assert_eq!(status, 200, "{page}");
        page.lines().any(|l| l.contains(&format!("route=\"{route}\"")) && l.contains(line))
    };
    eventually("the partner is believed", IN_TIME, || async {
        has("to-partner", "result=\"2xx\"} 1").await.then_some(())
    })
    .await;
    eventually("the stranger is not", IN_TIME, || async {
        has("to-stranger", "result=\"tls\"}").await.then_some(())
    })
    .await;
}
