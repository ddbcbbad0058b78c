//! Routes with their rules: each method of a path is registered with its action.
//!
//! A handler takes a proof of that action as its first argument. A handler without one, or with a
//! proof of another action, does not compile. Git has no routes here: the method and the path of
//! its requests name the action.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::handler::Handler;
use axum::routing::{self, MethodFilter, MethodRouter};
use henge_auth::{Act, Action, Authorized};
use henge_git::http::bundle_path;
use http::{Method, Uri};

use crate::api::Api;

/// An argument that only an allowed request has.
pub(crate) trait Proof<A> {}

impl<A> Proof<A> for Authorized<A> {}

/// The arguments of a handler, behind axum's marker. The first one is a proof of `A`.
#[diagnostic::on_unimplemented(
    message = "a handler of `{A}` takes an `Authorized<{A}>` as its first argument"
)]
pub(crate) trait Proves<A> {}

impl<A, M, P: Proof<A>> Proves<A> for (M, P) {}
impl<A, M, P: Proof<A>, T2> Proves<A> for (M, P, T2) {}
impl<A, M, P: Proof<A>, T2, T3> Proves<A> for (M, P, T2, T3) {}
impl<A, M, P: Proof<A>, T2, T3, T4> Proves<A> for (M, P, T2, T3, T4) {}
impl<A, M, P: Proof<A>, T2, T3, T4, T5> Proves<A> for (M, P, T2, T3, T4, T5) {}

/// The actions of one path.
#[derive(Debug, Clone)]
struct PathRule {
    methods: Vec<(Method, Action)>,
    /// The action of a method that the path does not take.
    others: Action,
}

impl PathRule {
    /// HEAD has the action of GET.
    fn action(&self, method: &Method) -> Action {
        let wanted = match *method == Method::HEAD {
            true => Method::GET,
            false => method.clone(),
        };
        let mut methods = self.methods.iter();
        let found = methods.find(|(known, _)| *known == wanted);
        found.map_or(self.others, |(_, action)| *action)
    }
}

/// The methods of one path, with handlers and actions.
#[derive(Debug)]
pub(crate) struct Methods {
    handlers: MethodRouter<Api>,
    rule: PathRule,
}

impl Methods {
    /// A path without methods; a request for it has the action `others`.
    fn none(others: Action) -> Self {
        Self {
            handlers: MethodRouter::new(),
            rule: PathRule {
                methods: Vec::new(),
                others,
            },
        }
    }

    fn on<A, H, T>(mut self, filter: MethodFilter, method: Method, handler: H) -> Self
    where
        A: Act,
        H: Handler<T, Api>,
        T: Proves<A> + 'static,
    {
        self.handlers = self.handlers.on(filter, handler);
        self.rule.methods.push((method, A::ACTION));
        self
    }

    pub(crate) fn post<A, H, T>(self, _: A, handler: H) -> Self
    where
        A: Act,
        H: Handler<T, Api>,
        T: Proves<A> + 'static,
    {
        self.on::<A, H, T>(MethodFilter::POST, Method::POST, handler)
    }

    pub(crate) fn put<A, H, T>(self, _: A, handler: H) -> Self
    where
        A: Act,
        H: Handler<T, Api>,
        T: Proves<A> + 'static,
    {
        self.on::<A, H, T>(MethodFilter::PUT, Method::PUT, handler)
    }

    pub(crate) fn patch<A, H, T>(self, _: A, handler: H) -> Self
    where
        A: Act,
        H: Handler<T, Api>,
        T: Proves<A> + 'static,
    {
        self.on::<A, H, T>(MethodFilter::PATCH, Method::PATCH, handler)
    }

    pub(crate) fn delete<A, H, T>(self, _: A, handler: H) -> Self
    where
        A: Act,
        H: Handler<T, Api>,
        T: Proves<A> + 'static,
    {
        self.on::<A, H, T>(MethodFilter::DELETE, Method::DELETE, handler)
    }
}

/// A path that takes GET.
pub(crate) fn get<A, H, T>(_: A, handler: H) -> Methods
where
    A: Act,
    H: Handler<T, Api>,
    T: Proves<A> + 'static,
{
    Methods::none(A::ACTION).on::<A, H, T>(MethodFilter::GET, Method::GET, handler)
}

/// A path that takes POST.
pub(crate) fn post<A, H, T>(act: A, handler: H) -> Methods
where
    A: Act,
    H: Handler<T, Api>,
    T: Proves<A> + 'static,
{
    Methods::none(A::ACTION).post(act, handler)
}

/// A path that takes PUT.
pub(crate) fn put<A, H, T>(act: A, handler: H) -> Methods
where
    A: Act,
    H: Handler<T, Api>,
    T: Proves<A> + 'static,
{
    Methods::none(A::ACTION).put(act, handler)
}

/// A path that takes every method, for one action.
pub(crate) fn any<A, H, T>(_: A, handler: H) -> Methods
where
    A: Act,
    H: Handler<T, Api>,
    T: Proves<A> + 'static,
{
    Methods {
        handlers: routing::any(handler),
        ..Methods::none(A::ACTION)
    }
}

/// The actions of all paths.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules(BTreeMap<&'static str, PathRule>);

impl Rules {
    /// The same, with the rules of other paths.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The action of a request.
    pub(crate) fn action(&self, request: &Request) -> Action {
        let method = request.method();
        match request.extensions().get::<MatchedPath>() {
            Some(path) => {
                let rule = self.0.get(path.as_str());
                rule.map_or(Action::MissRoute, |rule| rule.action(method))
            }
            // The git router is a fallback: no path is known yet.
            None => git_action(method, request.uri()),
        }
    }

    /// Every path with its methods.
    pub(crate) fn routes(&self) -> Vec<Route> {
        let mut routes = Vec::new();
        for (&path, rule) in &self.0 {
            for (method, action) in &rule.methods {
                routes.push(Route {
                    method: method.clone(),
                    path,
                    action: *action,
                });
            }
        }
        routes
    }
}

/// A method of a path, with its action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The template of the path, such as `/api/v1/repos/{owner}/{repo}`.
    pub path: &'static str,
    /// Its action.
    pub action: Action,
}

/// Paths with handlers and rules.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    router: Router<Api>,
    rules: Rules,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// One more path.
    pub(crate) fn at(mut self, path: &'static str, methods: Methods) -> Self {
        self.router = self.router.route(path, methods.handlers);
        self.rules.0.insert(path, methods.rule);
        self
    }

    /// The paths of both.
    pub(crate) fn merge(self, other: Self) -> Self {
        Self {
            router: self.router.merge(other.router),
            rules: self.rules.and(other.rules),
        }
    }

    /// The same paths under a layer or a fallback.
    pub(crate) fn under(self, layer: impl FnOnce(Router<Api>) -> Router<Api>) -> Self {
        Self {
            router: layer(self.router),
            rules: self.rules,
        }
    }

    pub(crate) fn into_parts(self) -> (Router<Api>, Rules) {
        (self.router, self.rules)
    }
}

/// The action of a request of the git protocol. A ref advertisement is a read if it is for a fetch.
fn git_action(method: &Method, uri: &Uri) -> Action {
    let path = uri.path();
    if *method == Method::GET || *method == Method::HEAD {
        if bundle_path(path).is_some() {
            return Action::ReadRepo;
        }
        if path.ends_with("/info/refs") {
            return match is_for_fetch(uri) {
                true => Action::ReadRepo,
                false => Action::WriteRefs,
            };
        }
    }
    if *method == Method::POST && path.ends_with("/git-upload-pack") {
        return Action::ReadRepo;
    }
    if *method == Method::POST && path.ends_with("/git-receive-pack") {
        return Action::WriteRefs;
    }
    Action::MissRoute
}

fn is_for_fetch(uri: &Uri) -> bool {
    let mut parameters = uri.query().unwrap_or_default().split('&');
    parameters.any(|one| one == "service=git-upload-pack")
}

/// Whether a client without a token may use the method: GET, for git also POST, and HEAD of a
/// bundle.
pub(crate) fn may_be_anonymous(request: &Request) -> bool {
    let method = request.method();
    if *method == Method::GET {
        return true;
    }
    if request.extensions().get::<MatchedPath>().is_some() {
        return false;
    }
    *method == Method::POST || bundle_path(request.uri().path()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_git_are_told_apart_by_method_and_path() {
        let (get, head, post) = (Method::GET, Method::HEAD, Method::POST);
        let bundle = format!("/a/b.git/bundles/{}.bundle", "0".repeat(64));
        for (method, uri, action) in [
            (
                &get,
                "/a/b.git/info/refs?service=git-upload-pack",
                Action::ReadRepo,
            ),
            (
                &head,
                "/a/b.git/info/refs?service=git-upload-pack",
                Action::ReadRepo,
            ),
            (
                &get,
                "/a/b.git/info/refs?service=git-receive-pack",
                Action::WriteRefs,
            ),
            (&get, "/a/b.git/info/refs", Action::WriteRefs),
            (&post, "/a/b.git/git-upload-pack", Action::ReadRepo),
            (&post, "/a/b.git/git-receive-pack", Action::WriteRefs),
            (&get, "/a/b.git/git-receive-pack", Action::MissRoute),
            (&Method::PUT, "/a/b.git/git-upload-pack", Action::MissRoute),
            (&get, "/a/b.git/HEAD", Action::MissRoute),
            (&get, "/", Action::MissRoute),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(git_action(method, &uri), action, "{method} {uri}");
        }
        let is_bundle = bundle_path(&bundle).is_some();
        let bundle: Uri = bundle.parse().unwrap();
        assert!(is_bundle, "{bundle}");
        for method in [&get, &head] {
            assert_eq!(git_action(method, &bundle), Action::ReadRepo);
        }
    }
}
