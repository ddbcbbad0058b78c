//! Servers that redirect elsewhere, request credentials, lie, or stall.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use henge_git_client::{
    AddressPolicy, Credentials, Error, Listing, Network, Remote, RemoteUrl, Source, Timeouts, Trust,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Header, Server, git, gits, project, watched};

fn list(remote: &mut Remote) -> Result<Listing, Error> {
    watched(|watch| Source::list(remote, watch))
}

fn secret() -> Credentials {
    let (_, credentials) = RemoteUrl::parse("http://me:hunter2@h/x").unwrap();
    credentials.unwrap()
}

fn from_git(program: &Path, dir: &Path) {
    project(program, dir);
    git(
        program,
        dir,
        &["clone", "-q", "--mirror", "work", "from.git"],
    );
}

/// A proxy that accepts only `me:hunter2`.
fn guarded(inner: &Server) -> Server {
    let target = format!("{}/from.git", inner.url);
    let guard = move |request: Request| {
        let target = target.clone();
        async move {
            let expected = "Basic bWU6aHVudGVyMg==";
            if request
                .headers()
                .get("authorization")
                .is_none_or(|value| value != expected)
            {
                let challenge = [("www-authenticate", "Basic realm=x")];
                return (StatusCode::UNAUTHORIZED, challenge, "who?").into_response();
            }
            let query = request.uri().query().unwrap_or_default();
            Redirect::temporary(&format!("{target}/info/refs?{query}")).into_response()
        }
    };
    Server::of(Router::new().fallback(guard))
}

#[test]
fn redirects_are_followed_without_telling_secrets_to_others() {
    let program = &gits()[0];
    let dir = tempfile::tempdir().unwrap();
    from_git(program, dir.path());
    let backend = Server::backend(program, dir.path(), Header::Passed);
    let guard = guarded(&backend);

    let error = list(&mut guard.remote("x.git")).unwrap_err();
    assert!(
        error.to_string().ends_with("/x.git wants credentials"),
        "{error}"
    );
    let wrong = Credentials::token(None, "hunter3");
    let error = list(&mut guard.remote_with(guard.network(), "x.git", Some(wrong))).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not take these credentials"),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("hunter"));

    let mut remote = guard.remote_with(guard.network(), "x.git", Some(secret()));
    assert!(!format!("{remote:?}").contains("hunter2"));
    let listing = list(&mut remote).unwrap();
    assert_eq!(
        remote.url().to_string(),
        format!("{}/from.git", backend.url)
    );
    assert_eq!(listing.refs.len(), 7);
    assert!(backend.seen().iter().all(|(_, _, secret)| secret.is_none()));
    assert!(guard.seen().iter().any(|(_, _, secret)| secret.is_some()));

    // Later requests there do not contain the secret either, and the error gives the reason.
    let second = guarded(&backend);
    let to_second = format!("{}/x.git/info/refs?service=git-upload-pack", second.url);
    let first = Server::of(Router::new().fallback(move || {
        let to_second = to_second.clone();
        async move { Redirect::permanent(&to_second) }
    }));
    let error = list(&mut first.remote_with(first.network(), "a.git", Some(secret()))).unwrap_err();
    assert!(error.to_string().contains("were not sent"), "{error}");
    assert!(second.seen().iter().all(|(_, _, secret)| secret.is_none()));
}

#[test]
fn redirects_that_lead_in_circles_or_astray_are_refused() {
    let circle = Server::of(Router::new().fallback(|request: Request| async move {
        let uri = request.uri().to_string();
        Redirect::temporary(&uri)
    }));
    let error = list(&mut circle.remote("x.git")).unwrap_err();
    assert!(error.to_string().contains("too many redirects"), "{error}");
    assert!(circle.seen().len() < 10);
    let login = Server::of(Router::new().fallback(|| async { Redirect::to("/login") }));
    let error = list(&mut login.remote("x.git")).unwrap_err();
    assert!(
        error.to_string().contains("no repository where it leads"),
        "{error}"
    );
}

#[test]
fn private_addresses_are_refused_before_a_connection_also_behind_a_redirect() {
    let server = Server::of(Router::new().fallback(|| async { "hello" }));
    let network = Network {
        addresses: AddressPolicy::Public,
        ..server.network()
    };
    let error = list(&mut server.remote_with(network, "x.git", None)).unwrap_err();
    assert!(matches!(error, Error::AddressRefused { .. }), "{error}");
    assert!(server.seen().is_empty(), "it was connected to");
}

/// Where private addresses were allowed, a mirror could be led to the service that gives a machine
/// its own credentials: by its URL in any notation, and by a redirect of any server.
#[test]
fn metadata_services_are_refused_where_private_addresses_are_allowed() {
    let hosts = [
        "169.254.169.254",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        // Notations that the system's resolver accepts for the same address: one number,
        // hexadecimal, octal, fewer parts.
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
    ];
    for host in hosts {
        let refused = |remote: &mut Remote| {
            let error = list(remote).unwrap_err();
            assert!(
                matches!(error, Error::AddressForbidden { .. }),
                "{host}: {error}"
            );
        };
        let there = format!("http://{host}/x.git");
        let target = format!("{there}/info/refs?service=git-upload-pack");
        let server = Server::of(Router::new().fallback(move || {
            let target = target.clone();
            async move { Redirect::temporary(&target) }
        }));
        refused(&mut server.remote("a.git"));
        assert_eq!(server.seen().len(), 1);
        let (url, _) = RemoteUrl::parse(&there).unwrap();
        refused(&mut Remote::new(
            Arc::new(server.network()),
            url,
            None,
            1 << 20,
        ));
    }
}

#[test]
fn pages_and_dumb_servers_are_told_apart_from_git() {
    let page = Server::of(Router::new().route(
        "/x/info/refs",
        get(|| async { ([(header::CONTENT_TYPE, "text/html")], "<html>") }),
    ));
    let error = list(&mut page.remote("x")).unwrap_err();
    assert!(error.to_string().contains("smart HTTP"), "{error}");
    let error = list(&mut page.remote("y")).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let busy = Server::of(Router::new().fallback(|| async {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "come\u{1b}[31m back\nlater",
        )
    }));
    let error = list(&mut busy.remote("x")).unwrap_err();
    assert!(
        error.to_string().ends_with("503: come [31m back"),
        "{error}"
    );
    assert!(error.may_pass());
}

#[test]
fn answers_that_are_cut_or_bent_are_errors() {
    let program = &gits()[0];
    let dir = tempfile::tempdir().unwrap();
    from_git(program, dir.path());
    let backend = Server::backend(program, dir.path(), Header::Passed);
    let listing = list(&mut backend.remote("from.git")).unwrap();
    for bent in [
        "0000",
        "0008NAK",
        "000cpackfile",
        "0011packfile\n",
        "hello",
        "",
    ] {
        let liar = Server::of(Router::new().fallback(move || async move {
            let kind = "application/x-git-upload-pack-result";
            let body = Body::from(bent);
            Response::builder()
                .header("content-type", kind)
                .body(body)
                .unwrap()
        }));
        let wants = [listing.refs[0].id];
        let mut remote = liar.remote("x");
        let outcome = watched(|watch| remote.fetch(&listing, &wants, &[], dir.path(), watch));
        assert!(outcome.is_err(), "{bent:?}");
    }
}

#[test]
fn a_server_that_rests_is_left() {
    let server = Server::of(Router::new());
    let network = Network {
        timeouts: Timeouts {
            rest: Duration::from_millis(400),
            ..Timeouts::default()
        },
        ..server.network()
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let (url, _) = RemoteUrl::parse(&url).unwrap();
    let mut remote = Remote::new(Arc::new(network), url, None, 1 << 20);
    let error = list(&mut remote).unwrap_err();
    assert!(matches!(error, Error::Rested { .. }), "{error}");
}

/// A TLS server with the same answer to every request.
async fn serve_tls(listener: tokio::net::TcpListener, config: rustls::ServerConfig) {
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(mut stream) = acceptor.accept(stream).await else {
            continue;
        };
        let mut request = vec![0; 4096];
        drop(stream.read(&mut request).await);
        let id = "1".repeat(40);
        let body = format!("001e# service=git-upload-pack\n0000{}0000", {
            let line = format!("{id} refs/heads/main\0agent=x\n");
            format!("{:04x}{line}", line.len() + 4)
        });
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        drop(stream.write_all(answer.as_bytes()).await);
        drop(stream.shutdown().await);
    }
}

#[test]
fn only_certificates_that_are_trusted_are_taken() {
    let server = Server::of(Router::new());
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let der = rustls_pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], der)
        .unwrap();
    let handle = server.network().handle;
    let listener = handle
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    handle.spawn(serve_tls(listener, config));

    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, key.cert.pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other_ca = dir.path().join("other.pem");
    std::fs::write(&other_ca, other.cert.pem()).unwrap();
    let ask = |host: &str, ca: &Path| {
        let (url, _) = RemoteUrl::parse(&format!("https://{host}:{port}/x")).unwrap();
        let network = Network {
            trust: Trust::file(ca),
            ..server.network()
        };
        list(&mut Remote::new(Arc::new(network), url, None, 1 << 20))
    };
    assert_eq!(ask("localhost", &ca).unwrap().refs.len(), 1);
    for (host, ca) in [("localhost", &other_ca), ("127.0.0.1", &ca)] {
        let error = ask(host, ca).unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error}");
    }
}
