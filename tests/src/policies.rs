//! The policies that the end-to-end tests run with.

/// One target, a rule of each kind, masks on two columns and one pattern.
///
/// `PASSWORD_FILE` is filled in by [`crate::World::write_policy`].
pub const SHOP: &str = r#"
kind: Target
name: orders
spec:
  protocol: postgres
  endpoints: ["10.77.2.2:5432", "[fd77:2::2]:5432"]
  default: allow
  catalog: {user: interceptor_catalog, passwordFile: PASSWORD_FILE}
---
kind: Rule
name: no-drop
spec:
  match: {statements: [DROP, TRUNCATE]}
  then: {deny: "tables are dropped by migrations only"}
---
kind: Rule
name: deletes-need-approval
spec:
  match: {statements: [DELETE]}
  then: {hold: {timeout: 60s, message: "somebody else looks at every DELETE first"}}
---
kind: Rule
name: impatient
spec:
  match: {statements: [UPDATE]}
  then: {hold: {timeout: 1s, message: "nobody will answer"}}
---
kind: Mask
name: personal-data
spec:
  columns: [public.customers.email, public.customers.ssn]
  with: full
---
kind: Mask
name: card-numbers
spec:
  patterns: [payment_card]
  with: full
"#;

/// The same target with nothing but defaults that let everything pass, unmasked.
pub const OPEN: &str = r#"
kind: Target
name: orders
spec:
  protocol: postgres
  endpoints: ["10.77.2.2:5432", "[fd77:2::2]:5432"]
  default: allow
  incomplete: allow
"#;
