//! Where the signing material comes from and when it changes.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::*;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn new_root() -> Ca {
    CertifiedIssuer::self_signed(ca_params("root"), KeyPair::generate().unwrap()).unwrap()
}

fn below(above: &Ca, name: &str) -> Ca {
    CertifiedIssuer::signed_by(ca_params(name), KeyPair::generate().unwrap(), above).unwrap()
}

fn plug(folder: &Path, files: &[(&str, String)]) {
    fs::create_dir_all(folder).unwrap();
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
}

fn whole_set(root: &Ca, middle: &Ca, signer: &Ca) -> Vec<(&'static str, String)> {
    vec![
        ("ca-cert.pem", signer.pem()),
        ("ca-key.pem", signer.key().serialize_pem()),
        ("root-cert.pem", root.pem()),
        ("cert-chain.pem", format!("{}{}", signer.pem(), middle.pem())),
    ]
}

fn config(folder: &Path) -> Config {
    let mut config = Config::new(TrustDomain::new("cluster.local").unwrap(), folder.join("state"));
    config.root_ca_dir = folder.join("cacerts");
    config
}

fn open(folder: &Path) -> Result<Authority, AuthorityError> {
    Authority::open(config(folder), Clock::manual(whole_seconds()).0)
}

#[test]
fn a_root_of_our_own_is_kept_private_and_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap().root_bundle();
    let state = folder.path().join("state");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("ca-key.pem")), 0o600);
    assert_eq!(mode(&state.join("token.key")), 0o600);
    assert_eq!(fs::read_to_string(state.join("root-cert.pem")).unwrap(), first);
    assert_eq!(open(folder.path()).unwrap().root_bundle(), first);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(open(folder.path()).unwrap_err().code(), "state-open-to-others");
}

#[tokio::test]
async fn an_old_root_is_renewed_with_the_same_key() {
    let world = World::new();
    let before = world.create(Call::of(&world)).await.unwrap();
    let old = world.authority.root_bundle();
    let years = |n: u64| Duration::from_secs(n * 365 * 86_400);
    world.hands.advance(years(7));
    world.authority.maintain_once(&mut PluggedFiles::fingerprint(&world.folder.path().join("cacerts")));
    assert_eq!(world.authority.root_bundle(), old);
    world.hands.advance(years(2));
    let expiry = world.authority.root_expiry();
    world.authority.maintain_once(&mut PluggedFiles::fingerprint(&world.folder.path().join("cacerts")));
    let new = world.authority.root_bundle();
    assert_ne!(new, old);
    assert!(world.authority.root_expiry() > expiry, "CP-J-08");
    let (old, new) = (ders(&[old]), ders(&[new]));
    let key = |der: &CertificateDer<'static>| {
        use x509_parser::prelude::{FromDer, X509Certificate};
        X509Certificate::from_der(der).unwrap().1.public_key().raw.to_vec()
    };
    assert_eq!(key(&old[0]), key(&new[0]));
    let issuer = |pem: &str| {
        use x509_parser::prelude::{FromDer, X509Certificate};
        X509Certificate::from_der(&ders(&[pem.to_owned()])[0]).unwrap().1.issuer().to_string()
    };
    let after = world.create(Call { authorization: Some(world.bearer()), ..Call::of(&world) }).await.unwrap();
    assert_eq!(issuer(&before[0]), issuer(&after[0]));
}

// CP-J-05: intermediates one by one, the bundle unsplit.
#[tokio::test]
async fn plugged_files_give_leaf_then_each_intermediate_then_the_bundle() {
    let (root, other) = (new_root(), new_root());
    let middle = below(&root, "middle");
    let signer = below(&middle, "signer");
    let bundle = format!("{}{}", other.pem(), root.pem());
    let world = World::with(|config| {
        plug(&config.root_ca_dir, &whole_set(&root, &middle, &signer));
        plug(&config.root_ca_dir, &[("root-cert.pem", bundle.clone())]);
    });
    let chain = world.create(Call::of(&world)).await.unwrap();
    assert_eq!(chain.len(), 4);
    assert_eq!(ders(&chain[1..3]), [signer.der().clone(), middle.der().clone()]);
    assert_eq!(chain[3].matches("BEGIN CERTIFICATE").count(), 2);
    // A join token names the root that signs, not the first of the bundle.
    let published = fs::read_to_string(world.state().join("issuing-root.pem")).unwrap();
    assert_eq!(ders(&[published]), [root.der().clone()]);
}

#[test]
fn the_tls_secret_layout_works_too() {
    let folder = tempfile::tempdir().unwrap();
    let root = new_root();
    let signer = below(&root, "signer");
    let files =
        [("tls.crt", signer.pem()), ("tls.key", signer.key().serialize_pem()), ("ca.crt", root.pem())];
    plug(&folder.path().join("cacerts"), &files);
    assert_eq!(ders(&[open(folder.path()).unwrap().root_bundle()]), [root.der().clone()]);
}

#[test]
fn half_a_set_stops_the_start() {
    let root = new_root();
    let middle = below(&root, "middle");
    let signer = below(&middle, "signer");
    for missing in ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"] {
        let folder = tempfile::tempdir().unwrap();
        plug(&folder.path().join("cacerts"), &whole_set(&root, &middle, &signer));
        fs::remove_file(folder.path().join("cacerts").join(missing)).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert_eq!(error.code(), "ca-material-partial", "{missing}");
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[test]
fn files_that_do_not_fit_stop_the_start() {
    let root = new_root();
    let middle = below(&root, "middle");
    let signer = below(&middle, "signer");
    let leaf = CertificateParams::new(vec!["x".to_owned()]).unwrap().signed_by(signer.key(), &*root).unwrap();
    let replaced = |name, content| (name, content);
    for (file, code) in [
        (replaced("ca-key.pem", middle.key().serialize_pem()), "ca-material-key-mismatch"),
        (replaced("ca-key.pem", "garbage".to_owned()), "ca-material-key"),
        (replaced("ca-cert.pem", "garbage".to_owned()), "ca-material-certificate"),
        (replaced("ca-cert.pem", leaf.pem()), "ca-material-not-a-ca"),
        (replaced("cert-chain.pem", signer.pem()), "ca-material-chain"),
        (replaced("root-cert.pem", new_root().pem()), "ca-material-chain"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let cacerts = folder.path().join("cacerts");
        plug(&cacerts, &whole_set(&root, &middle, &signer));
        plug(&cacerts, std::slice::from_ref(&file));
        assert_eq!(open(folder.path()).unwrap_err().code(), code, "{}", file.0);
    }
}

#[test]
fn changed_files_are_taken_up_unless_they_break_trust() {
    let (root, stranger) = (new_root(), new_root());
    let middle = below(&root, "middle");
    let (first, second) = (below(&middle, "first"), below(&middle, "second"));
    let world = World::with(|config| plug(&config.root_ca_dir, &whole_set(&root, &middle, &first)));
    let cacerts = world.folder.path().join("cacerts");
    let mut seen = PluggedFiles::fingerprint(&cacerts);
    let signer = || world.authority.shared.material().intermediates()[0].clone();
    plug(&cacerts, &whole_set(&root, &middle, &second));
    world.authority.maintain_once(&mut seen);
    assert_eq!(ders(&[signer()]), [second.der().clone()]);
    let foreign = below(&stranger, "middle");
    plug(&cacerts, &whole_set(&stranger, &foreign, &below(&foreign, "signer")));
    world.authority.maintain_once(&mut seen);
    assert_eq!(ders(&[signer()]), [second.der().clone()], "another root altogether");
    fs::remove_file(cacerts.join("ca-key.pem")).unwrap();
    world.authority.maintain_once(&mut seen);
    assert_eq!(ders(&[signer()]), [second.der().clone()], "half a set");
}
