//! A repository over smart HTTP (gitprotocol-http(5)).

use std::path::Path;

use bytes::Bytes;
use henge_git::protocol::AGENT;
use henge_git::{Protocol, Service};
use henge_types::{ObjectId, RefUpdate};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST,
    LOCATION, USER_AGENT,
};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};

use crate::error::Error;
use crate::exchange::{self, Answer, Upload};
use crate::listing::{self, Listing};
use crate::network::SharedNetwork;
use crate::pack::PackFile;
use crate::report::{self, PushVerdict};
use crate::request;
use crate::transfer::{Destination, Event, Source, Watch};
use crate::url::{Credentials, RemoteUrl};

/// Maximum number of consecutive redirects.
const REDIRECTS_MAX: usize = 5;
/// Maximum size of a listing of refs. It is kept in memory.
const LISTING_BYTES_MAX: u64 = 96 * 1024 * 1024;
/// Maximum size of the report on a push, side-bands included.
const REPORT_BYTES_MAX: u64 = 64 * 1024 * 1024;
const GIT_PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");

/// A repository on a server.
#[derive(Debug)]
pub struct Remote {
    network: SharedNetwork,
    url: RemoteUrl,
    credentials: Option<Credentials>,
    /// Whether the credentials are withheld, because a redirect led to another server.
    kept_back: bool,
    /// The receive-pack advertisement, without its refs.
    for_push: Option<Listing>,
    pack_bytes_max: u64,
}

impl Remote {
    /// The repository at `url`; packs of more than `pack_bytes_max` bytes are refused.
    pub const fn new(
        network: SharedNetwork,
        url: RemoteUrl,
        credentials: Option<Credentials>,
        pack_bytes_max: u64,
    ) -> Self {
        Self {
            network,
            url,
            credentials,
            kept_back: false,
            for_push: None,
            pack_bytes_max,
        }
    }

    /// The address of the repository, after redirects.
    pub const fn url(&self) -> &RemoteUrl {
        &self.url
    }

    /// Requests the advertisement and follows redirects; later requests do not follow them.
    fn advertisement(
        &mut self,
        service: Service,
        protocol: Protocol,
        watch: &Watch<'_>,
    ) -> Result<Listing, Error> {
        let suffix = "/info/refs";
        for _ in 0..=REDIRECTS_MAX {
            let target = format!("{}{suffix}?service={}", self.url.path(), service.name());
            let mut request =
                self.request(Method::GET, &target, Upload::new(Bytes::new(), None))?;
            if protocol == Protocol::V2 {
                let version = HeaderValue::from_static("version=2");
                request.headers_mut().insert(GIT_PROTOCOL, version);
            }
            let answer = self.send(request, LISTING_BYTES_MAX, watch, &mut |_| {})?;
            if !answer.status.is_redirection() {
                let expected = format!("application/x-{}-advertisement", service.name());
                let mut answer = self.accepted(answer, &expected)?;
                return listing::read_advertisement(&mut answer.body, service);
            }
            self.follow(&answer, suffix)?;
        }
        Err(self.not_followed("too many redirects one after the other"))
    }

    fn follow(&mut self, answer: &Answer, suffix: &str) -> Result<(), Error> {
        let location = answer.headers.get(LOCATION);
        let location = location.and_then(|value| value.to_str().ok());
        let next = location
            .and_then(|location| self.url.redirected(location, suffix))
            .ok_or_else(|| self.not_followed("it is no repository where it leads"))?;
        if self.url.scheme() == crate::url::Scheme::Https
            && next.scheme() == crate::url::Scheme::Http
        {
            return Err(self.not_followed("it leads from https to http"));
        }
        if !self.url.trusts(&next) && self.credentials.take().is_some() {
            self.kept_back = true;
        }
        tracing::debug!(from = %self.url, to = %next, "redirected");
        self.url = next;
        Ok(())
    }

    fn not_followed(&self, why: &'static str) -> Error {
        Error::Redirect {
            url: self.url.clone(),
            why,
        }
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        body: Upload,
    ) -> Result<Request<Upload>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, self.url.authority())
            // Servers distinguish git from browsers by this word.
            .header(USER_AGENT, format!("git/2 {AGENT}"))
            .header(ACCEPT_ENCODING, "identity")
            .header(CONNECTION, "close");
        if let Some(credentials) = &self.credentials {
            let value = credentials.header().ok_or(Error::Credentials)?;
            request = request.header(AUTHORIZATION, value);
        }
        request
            .body(body)
            .map_err(|_| Error::protocol("the path of the URL cannot be asked for"))
    }

    fn send(
        &self,
        request: Request<Upload>,
        answer_bytes_max: u64,
        watch: &Watch<'_>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<Answer, Error> {
        let (network, stop) = (&self.network, watch.stop);
        exchange::send(network, &self.url, request, answer_bytes_max, stop, sent)
    }

    /// The answer, if its status and content type are those of the protocol.
    fn accepted(&self, mut answer: Answer, content_type: &str) -> Result<Answer, Error> {
        let url = self.url.clone();
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                return Err(Error::Denied {
                    url,
                    given: self.credentials.is_some(),
                    elsewhere: self.kept_back,
                });
            }
            StatusCode::FORBIDDEN => {
                let message = answer.body.message();
                return Err(Error::Forbidden { url, message });
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Error::NotFound { url }),
            status if status.is_redirection() => {
                return Err(self.not_followed("only the first question may be led on"));
            }
            status => {
                let message = answer.body.message();
                return Err(Error::Status {
                    url,
                    status: status.as_u16(),
                    message,
                });
            }
        }
        if let Some(encoding) = answer.headers.get(CONTENT_ENCODING)
            && encoding != "identity"
        {
            return Err(Error::protocol("it is compressed, which was not asked for"));
        }
        let found = answer.headers.get(CONTENT_TYPE);
        if found.is_some_and(|found| found.as_bytes() == content_type.as_bytes()) {
            Ok(answer)
        } else {
            Err(Error::NotSmart { url })
        }
    }

    /// Sends a request to a service and waits for the head of the answer.
    fn rpc(
        &self,
        service: Service,
        protocol: Protocol,
        body: Upload,
        answer_bytes_max: u64,
        watch: &mut Watch<'_>,
    ) -> Result<Answer, Error> {
        let name = service.name();
        let target = format!("{}/{name}", self.url.path());
        let total = http_body::Body::size_hint(&body)
            .exact()
            .unwrap_or_default();
        let mut request = self.request(Method::POST, &target, body)?;
        let headers = request.headers_mut();
        let kind = |what: &str| {
            HeaderValue::from_str(&format!("application/x-{name}-{what}"))
                .map_err(|_| Error::protocol("the service has no name"))
        };
        headers.insert(CONTENT_TYPE, kind("request")?);
        headers.insert(ACCEPT, kind("result")?);
        match protocol {
            Protocol::V2 => {
                headers.insert(GIT_PROTOCOL, HeaderValue::from_static("version=2"));
            }
            Protocol::V1 => {
                headers.insert(GIT_PROTOCOL, HeaderValue::from_static("version=1"));
            }
            Protocol::V0 => {}
        }
        let (stop, tell) = (watch.stop, &mut *watch.tell);
        let answer = exchange::send(
            &self.network,
            &self.url,
            request,
            answer_bytes_max,
            stop,
            &mut |bytes| tell(Event::Sent { bytes, total }),
        )?;
        self.accepted(answer, &format!("application/x-{name}-result"))
    }
}

impl Source for Remote {
    fn list(&mut self, watch: &mut Watch<'_>) -> Result<Listing, Error> {
        let mut listing = self.advertisement(Service::UploadPack, Protocol::V2, watch)?;
        if listing.protocol == Protocol::V2 {
            let body = Upload::new(request::ls_refs(&listing)?.into(), None);
            let mut quiet = Watch {
                stop: watch.stop,
                tell: &mut |_| {},
            };
            let mut answer = self.rpc(
                Service::UploadPack,
                Protocol::V2,
                body,
                LISTING_BYTES_MAX,
                &mut quiet,
            )?;
            listing::read_ls_refs(&mut answer.body, &mut listing)?;
        }
        Ok(listing)
    }

    fn fetch(
        &mut self,
        listing: &Listing,
        wants: &[ObjectId],
        haves: &[ObjectId],
        directory: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<PackFile, Error> {
        let body = Upload::new(request::fetch(listing, wants, haves)?.into(), None);
        let protocol = listing.protocol;
        // Side-bands and progress messages are added to the pack.
        let answer_bytes_max = self.pack_bytes_max.saturating_add(self.pack_bytes_max / 64);
        let answer_bytes_max = answer_bytes_max.saturating_add(LISTING_BYTES_MAX);
        let mut quiet = Watch {
            stop: watch.stop,
            tell: &mut |_| {},
        };
        let mut answer = self.rpc(
            Service::UploadPack,
            protocol,
            body,
            answer_bytes_max,
            &mut quiet,
        )?;
        PackFile::from_answer(
            directory,
            listing.format,
            self.pack_bytes_max,
            protocol,
            &mut answer.body,
            watch.tell,
        )
    }
}

impl Destination for Remote {
    fn list(&mut self, watch: &mut Watch<'_>) -> Result<Listing, Error> {
        // Pushes use protocol v0.
        let listing = self.advertisement(Service::ReceivePack, Protocol::V0, watch)?;
        // Its refs are not requested again.
        self.for_push = Some(listing.without_refs());
        Ok(listing)
    }

    fn push(
        &mut self,
        updates: &[RefUpdate],
        pack: Option<&PackFile>,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<PushVerdict>, Error> {
        let listing = match self.for_push.take() {
            Some(listing) => listing,
            None => self.advertisement(Service::ReceivePack, Protocol::V0, watch)?,
        };
        let head = request::push(&listing, updates)?;
        let side_bands = listing.capabilities.has("side-band-64k");
        self.for_push = Some(listing);
        let file = pack.map(|pack| pack.reader().map(|file| (file, pack.bytes())));
        let file = file.transpose();
        let body = Upload::new(
            head.into(),
            file.map_err(Error::io("cannot read the pack"))?,
        );
        let mut answer = self.rpc(
            Service::ReceivePack,
            Protocol::V0,
            body,
            REPORT_BYTES_MAX,
            watch,
        )?;
        report::read(&mut answer.body, side_bands, updates, &mut |text| {
            (watch.tell)(Event::Said(text));
        })
    }
}
