//! HTTP on loopback: a server that answers as a closure says, and what the client makes of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chancery_client::{Server, ServerError, Transport, Url, get_raw, post_raw};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::pki::Pki;

/// What a request looked like to the server.
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) content_type: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) type Reply = Response<Full<Bytes>>;

pub(crate) fn ok(body: impl Into<Bytes>) -> Reply {
    Response::new(Full::new(body.into()))
}

pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl TestServer {
    /// Serves until the test's runtime ends.
    pub(crate) async fn start(answer: impl Fn(Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (answer, counter) = (Arc::new(answer), connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let header = |name: &str| {
                            head.headers
                                .get(name)
                                .map(|v| v.to_str().unwrap().to_owned())
                        };
                        Ok::<_, Infallible>(answer(Seen {
                            method: head.method.to_string(),
                            path: head.uri.path().into(),
                            query: head.uri.query().unwrap_or_default().into(),
                            content_type: header("content-type"),
                            host: header("host"),
                            body: body.collect().await.unwrap().to_bytes().to_vec(),
                        }))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            connections,
        }
    }

    pub(crate) fn url(&self) -> Url {
        format!("http://{}/scep/devices", self.address)
            .parse()
            .unwrap()
    }

    pub(crate) fn client(&self) -> Server {
        Server::new(self.url())
    }
}

#[tokio::test]
async fn operations_are_spelt_as_the_standard_has_them() {
    let server = TestServer::start(|seen| {
        assert_eq!(seen.path, "/scep/devices");
        assert!(seen.host.unwrap().starts_with("127.0.0.1:"));
        let text = format!("{} {} {:?}", seen.method, seen.query, seen.content_type);
        ok([text.as_bytes(), b"|", &seen.body].concat())
    })
    .await;
    let client = server.client();
    let message = [0xfb, 0xff, 0xfe, b'x'];
    let post = client
        .pki_operation(Transport::Post, &message)
        .await
        .unwrap();
    let expected = b"POST operation=PKIOperation Some(\"application/x-pki-message\")|\xfb\xff\xfex";
    assert_eq!(post.body, &expected[..]);
    let get = client
        .pki_operation(Transport::Get, &message)
        .await
        .unwrap();
    let expected = b"GET operation=PKIOperation&message=%2B%2F%2F%2BeA%3D%3D None|";
    assert_eq!(get.body, &expected[..]);
    let raw = get_raw(&server.url(), "operation=X&message=a+b")
        .await
        .unwrap();
    assert_eq!(raw.body, &b"GET operation=X&message=a+b None|"[..]);
    assert_eq!(
        post_raw(&server.url(), vec![1, 2]).await.unwrap().status,
        200
    );
    assert!(get_raw(&server.url(), "a b").await.is_err());
}

#[tokio::test]
async fn a_connection_is_kept_and_replaced_when_it_breaks() {
    let server = TestServer::start(|seen| {
        let mut reply = ok("AES");
        if seen.query == "close" {
            reply
                .headers_mut()
                .insert("connection", "close".parse().unwrap());
        }
        reply
    })
    .await;
    let client = server.client();
    for _ in 0..5 {
        client.get_ca_caps().await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    client.get("close").await.unwrap();
    client.get_ca_caps().await.unwrap();
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn capabilities_survive_an_error_but_not_a_503() {
    let server = TestServer::start(|seen| {
        let status = if seen.path.ends_with("busy") {
            503
        } else {
            400
        };
        let mut reply = ok("AES");
        *reply.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
        reply
            .headers_mut()
            .insert("retry-after", "5".parse().unwrap());
        reply
    })
    .await;
    assert!(
        server
            .client()
            .get_ca_caps()
            .await
            .unwrap()
            .keywords()
            .is_empty()
    );
    let busy = Server::new(format!("{}/busy", server.url()).parse().unwrap());
    let error = busy.get_ca_caps().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the server answered 503 to GetCACaps at {}: try again in 5 s",
            busy.url()
        )
    );
    let after = Some(Duration::from_secs(5));
    assert!(
        matches!(error, ServerError::Status { status: 503, retry_after, .. } if retry_after == after)
    );
    assert!(matches!(
        server.client().get_ca_cert().await,
        Err(ServerError::Status { status: 400, .. })
    ));
}

#[tokio::test]
async fn get_ca_cert_comes_in_two_forms() {
    let pki = Pki::new();
    let all = pki.certificates(&["root", "issuing", "decryption", "signing"]);
    let (one, p7) = (
        all[0].as_der().to_vec(),
        chancery_client::degenerate(&all).unwrap(),
    );
    let empty = chancery_client::degenerate(&[]).unwrap();
    let server = TestServer::start(move |seen| match seen.path.rsplit('/').next() {
        Some("one") => ok(one.clone()),
        Some("empty") => ok(empty.clone()),
        Some("junk") => ok("junk"),
        _ => ok(p7.clone()),
    })
    .await;
    let at = |path: &str| Server::new(format!("{}/{path}", server.url()).parse().unwrap());
    let served = server.client().get_ca_cert().await.unwrap();
    assert_eq!(served.all.len(), 4);
    assert_eq!(served.encryption(), Some(&all[2]));
    assert_eq!(served.signers(), [&all[3]]);
    assert_eq!(served.authorities().len(), 2);
    let single = at("one").get_ca_cert().await.unwrap();
    assert_eq!(single.all, [all[0].clone()]);
    // An elliptic root that talks to clients itself can sign, but not receive.
    assert_eq!(single.encryption(), None);
    assert_eq!(single.signers(), [&all[0]]);
    assert!(matches!(
        at("empty").get_ca_cert().await,
        Err(ServerError::CaCertificates(_))
    ));
    assert!(matches!(
        at("junk").get_ca_cert().await,
        Err(ServerError::CaCertificates(_))
    ));
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = Server::new(format!("http://{address}/").parse().unwrap());
    let error = client.get_ca_caps().await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot connect to {address}: ")),
        "{error}"
    );
}
