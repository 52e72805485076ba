//! Members of the bus with the operator's role, as HTTP. Users of the page are in `users.rs`. No logic of its own.

use bus_schema::api::{ApiCall, ApiResult, OperatorView};

use super::{
    ask::{Answer, Ask, Page, json, nothing, unexpected},
    problem::Refusal,
    table::{Endpoint, admin, by, viewer},
};
use crate::permission::Reach::Whole;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/operators",
            viewer(Whole),
            "Operators with keys of their own",
            by!(list),
        )
        .answers::<Page<OperatorView>>(),
        Endpoint::delete(
            "/operators/{name}",
            admin(),
            "Takes an operator out of the fleet for good",
            by!(revoke),
        ),
    ]
}

async fn all(ask: &Ask) -> Result<Vec<OperatorView>, Refusal> {
    match ask.call(ApiCall::OperatorList).await? {
        ApiResult::Operators(all) => Ok(all),
        _ => Err(unexpected()),
    }
}

async fn list(ask: Ask) -> Answer {
    json(Page::all(all(&ask).await?))
}

async fn revoke(ask: Ask) -> Answer {
    let name = ask.param("name");
    let found = all(&ask).await?.into_iter().find(|one| one.name == name);
    let one = found.ok_or_else(|| Refusal::not_found("there is no such operator", "see GET /operators"))?;
    ask.call(ApiCall::OperatorRevoke(one.node)).await?;
    nothing()
}
