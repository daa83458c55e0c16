"""What the control plane asks of PostgreSQL: files of statements, and beside each the module that types them."""

from control.sql import archive as archive
from control.sql import audit as audit
from control.sql import billing as billing
from control.sql import entitlements as entitlements
from control.sql import grants as grants
from control.sql import health as health
from control.sql import incidents as incidents
from control.sql import journal as journal
from control.sql import keys as keys
from control.sql import leases as leases
from control.sql import limits as limits
from control.sql import notifications as notifications
from control.sql import organizations as organizations
from control.sql import overage as overage
from control.sql import plans as plans
from control.sql import reconcile as reconcile
from control.sql import revocations as revocations
from control.sql import roles as roles
from control.sql import schema as schema
from control.sql import service_tokens as service_tokens
from control.sql import sessions as sessions
from control.sql import signing_keys as signing_keys
from control.sql import thresholds as thresholds
from control.sql import usage as usage
from control.sql import webhooks as webhooks
