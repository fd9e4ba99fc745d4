//! Files, the authority, and who is believed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, Source, UpstreamTls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use tempfile::TempDir;

use super::verify::{Anchors, Verifier};
use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn snapshot(tls: &str) -> Snapshot {
    let text = format!(
        "kind: Target\nname: orders\nspec:\n  protocol: postgres\n  endpoints: [\"10.0.0.5:5432\", \"db.test:5432\", \"10.1.0.0/16:5432\"]\n{tls}"
    );
    let sources = [Source {
        file: "policy.yaml",
        text: &text,
    }];
    policy::load(&sources, &HashKey::new([0; 32])).unwrap_or_else(|error| panic!("{error}"))
}

fn new_authority(directory: &Path) -> Authority {
    let new = NewAuthority {
        name: "test CA".to_owned(),
        valid: 30 * DAY,
    };
    Authority::create(directory, &new).unwrap()
}

#[test]
fn an_authority_is_made_once_and_kept_from_others() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().join("ca");
    assert!(Authority::open(&place).unwrap().is_none());
    let made = new_authority(&place);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (certificate, key) = Authority::files(&place);
    assert_eq!(
        (mode(&place), mode(&key), mode(&certificate)),
        (0o700, 0o600, 0o644)
    );
    let again = Authority::open(&place).unwrap().unwrap();
    assert_eq!(again.pem(), made.pem());
    assert_eq!(again.fingerprint(), made.fingerprint());
    assert_eq!(fs::read_to_string(&certificate).unwrap(), made.pem());
    let other = NewAuthority {
        name: "another".to_owned(),
        valid: DAY,
    };
    let refused = Authority::create(&place, &other);
    assert!(matches!(refused, Err(AuthorityError::Exists { .. })));
    assert!(!format!("{made:?}").contains("key"));

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Authority::open(&place).unwrap_err().to_string();
    assert!(error.contains("can be read by others"), "{error}");
}

#[test]
fn what_it_issues_is_for_the_target_and_renewed_before_it_ends() {
    let directory = TempDir::new().unwrap();
    let authority = new_authority(directory.path());
    let policy = snapshot("");
    let target = policy.target("orders").unwrap();
    let issued = Issued::default();
    let dialled: IpAddr = "10.1.2.3".parse().unwrap();
    let now = SystemTime::now();
    let first = issued.shown(&authority, target, dialled, now).unwrap();
    let again = issued
        .shown(&authority, target, dialled, now + DAY)
        .unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let renewed = issued
        .shown(&authority, target, dialled, now + 6 * DAY)
        .unwrap();
    assert!(!Arc::ptr_eq(&first, &renewed));
    assert!(!first.end_point.is_empty());
    assert_ne!(first.end_point, renewed.end_point);
    let other = issued
        .shown(&authority, target, "10.1.2.4".parse().unwrap(), now)
        .unwrap();
    assert_ne!(other.end_point, first.end_point);
}

#[test]
fn what_it_issues_is_believed_under_the_names_of_the_target_alone() {
    let directory = TempDir::new().unwrap();
    let authority = new_authority(directory.path());
    let names = vec![
        "10.1.2.3".to_owned(),
        "db.test".to_owned(),
        "fd00::5".to_owned(),
    ];
    let issued = authority
        .issue("orders", names, SystemTime::now(), 7 * DAY)
        .unwrap();
    let root = CertificateDer::from(pem_der(&authority.pem()));
    for name in ["10.1.2.3", "db.test", "fd00::5"] {
        believe(UpstreamTls::VerifyFull, &root, name, &issued.cert).unwrap();
    }
    for name in ["10.1.2.4", "other.test", "x.db.test"] {
        let error = believe(UpstreamTls::VerifyFull, &root, name, &issued.cert).unwrap_err();
        assert!(matches!(
            error,
            Error::InvalidCertificate(CertificateError::NotValidForName)
        ));
        believe(UpstreamTls::VerifyAuthority, &root, name, &issued.cert).unwrap();
    }
}

fn pem_der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

fn believe(
    mode: UpstreamTls,
    root: &CertificateDer<'static>,
    name: &str,
    chain: &[CertificateDer<'static>],
) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let verifier = Verifier {
        mode,
        anchors: Arc::new(Anchors {
            roots,
            certificates: vec![root.clone()],
        }),
        names: vec![name.clone()],
        provider: provider(),
    };
    let (end_entity, intermediates) = chain.split_first().unwrap();
    let now = UnixTime::now();
    let done = verifier.verify_server_cert(end_entity, intermediates, &name, &[], now);
    done.map(drop)
}

fn parameters(common: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, common);
    parameters
}

/// As `openssl req -x509` makes it and PostgreSQL's manual shows it: its own authority, its name in the
/// common name.
#[test]
fn a_certificate_that_is_believed_itself_needs_no_authority() {
    let key = KeyPair::generate().unwrap();
    let mut own = parameters("db.test", &[]);
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = own.self_signed(&key).unwrap().der().clone();
    believe(
        UpstreamTls::VerifyFull,
        &own,
        "db.test",
        std::slice::from_ref(&own),
    )
    .unwrap();
    let error = believe(
        UpstreamTls::VerifyFull,
        &own,
        "other.test",
        std::slice::from_ref(&own),
    );
    assert!(error.is_err());
    // It certifies others only as an authority does.
    let stranger = parameters("db.test", &["db.test"]);
    let stranger = stranger
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap()
        .der()
        .clone();
    let error = believe(
        UpstreamTls::VerifyAuthority,
        &own,
        "db.test",
        std::slice::from_ref(&stranger),
    );
    assert!(error.is_err());
    believe(UpstreamTls::Require, &own, "db.test", &[stranger]).unwrap();
}

#[test]
fn the_common_name_counts_only_without_other_names() {
    let key = KeyPair::generate().unwrap();
    let mut root = parameters("root", &[]);
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(root, key);
    let issue = |parameters: CertificateParams| {
        let certificate = parameters
            .signed_by(&KeyPair::generate().unwrap(), &issuer)
            .unwrap();
        [certificate.der().clone()]
    };
    let bare = issue(parameters("db.test", &[]));
    believe(UpstreamTls::VerifyFull, &root_certificate, "db.test", &bare).unwrap();
    let named = issue(parameters("db.test", &["other.test"]));
    assert!(
        believe(
            UpstreamTls::VerifyFull,
            &root_certificate,
            "db.test",
            &named
        )
        .is_err()
    );
    believe(
        UpstreamTls::VerifyFull,
        &root_certificate,
        "other.test",
        &named,
    )
    .unwrap();
    let mut over = parameters("db.test", &["db.test"]);
    over.not_after = rcgen::date_time_ymd(2020, 1, 1);
    for mode in [UpstreamTls::VerifyAuthority, UpstreamTls::VerifyFull] {
        let error = believe(mode, &root_certificate, "db.test", &issue(over.clone())).unwrap_err();
        assert!(matches!(
            error,
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            )
        ));
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Writes a certificate of its own, and gives the policy that names it.
fn own_pair(directory: &Path) -> Snapshot {
    let key = KeyPair::generate().unwrap();
    let certificate = parameters("orders", &["db.test"])
        .self_signed(&key)
        .unwrap();
    write(&directory.join("own.pem"), &certificate.pem(), 0o644);
    write(&directory.join("own.key"), &key.serialize_pem(), 0o600);
    let at = directory.display();
    snapshot(&format!(
        "  tls: {{certificate: {at}/own.pem, key: {at}/own.key}}\n"
    ))
}

#[test]
fn files_are_checked_and_watched() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let policy = own_pair(path);
    let tls = Tls::new(&path.join("ca"));
    tls.replace(Arc::new(tls.read(&policy).unwrap()));
    assert!(tls.has_certificate("orders") && !tls.has_certificate("other"));
    let target = policy.target("orders").unwrap();
    let dialled: IpAddr = "10.0.0.5".parse().unwrap();
    let shown = tls.shown(target, dialled).unwrap();

    let before = tls.digest();
    assert_eq!(before, tls.digest());
    own_pair(path);
    assert_ne!(before, tls.digest(), "renewed files are another content");
    tls.replace(Arc::new(tls.read(&policy).unwrap()));
    assert_ne!(
        shown.end_point,
        tls.shown(target, dialled).unwrap().end_point
    );

    let key = path.join("own.key");
    let text = fs::read_to_string(&key).unwrap();
    let before = tls.digest();
    write(&key, &text, 0o640);
    // The tests run as root: PostgreSQL's rule for root's keys.
    tls.read(&policy).unwrap();
    write(&key, &text, 0o644);
    let error = tls.read(&policy).unwrap_err().to_string();
    assert!(error.contains("own.key can be read by others"), "{error}");
    assert_ne!(before, tls.digest(), "who may read is part of it");
    write(&key, &KeyPair::generate().unwrap().serialize_pem(), 0o600);
    let error = tls.read(&policy).unwrap_err().to_string();
    assert!(error.contains("is not one of the key"), "{error}");
    write(&key, "garbage", 0o600);
    let error = tls.read(&policy).unwrap_err().to_string();
    assert!(error.contains("holds no private key"), "{error}");
    fs::remove_file(&key).unwrap();
    let error = tls.read(&policy).unwrap_err().to_string();
    assert!(error.contains("cannot read"), "{error}");
    write(&path.join("own.pem"), "garbage", 0o644);
    let error = tls.read(&policy).unwrap_err().to_string();
    assert!(error.contains("holds no certificate"), "{error}");
}

#[test]
fn without_certificates_there_is_nothing_to_offer() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::new(directory.path());
    let policy = snapshot("");
    tls.replace(Arc::new(tls.read(&policy).unwrap()));
    assert!(!tls.has_certificate("orders"));
    // An authority that is made later is seen.
    let before = tls.digest();
    new_authority(directory.path());
    assert_ne!(before, tls.digest());
    tls.replace(Arc::new(tls.read(&policy).unwrap()));
    assert!(tls.has_certificate("orders"));
    let off = snapshot("  tls: {client: off}\n");
    tls.replace(Arc::new(tls.read(&off).unwrap()));
    assert!(!tls.has_certificate("orders"));
}
