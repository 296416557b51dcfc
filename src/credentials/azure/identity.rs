//! The Azure identity of this process.

use std::{fs, io, sync::Arc};

use azure_core::credentials::TokenCredential;
use azure_identity::{
    ClientAssertionCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};

use super::{
    connector::{Connector, Peer},
    failure::Failure,
};
use crate::{
    credentials::{config::AzureIdentity, problem::MAX_FILE_BYTES, store::Transport},
    error_chain,
};

/// Checks the token file of a workload identity, because the SDK reads it without a limit, on the thread of the control plane: a FIFO would
/// block it. The SDK itself reports a file that is missing or cannot be read.
pub(super) fn check_token_file(identity: &AzureIdentity) -> Result<(), Failure> {
    let metadata = identity.token_file.as_ref().and_then(|path| fs::metadata(path).ok());
    match metadata {
        Some(metadata) if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES as u64 => {
            Err(Failure::invalid_token_file())
        }
        _ => Ok(()),
    }
}

/// Creates the object that obtains tokens. Reads the token file of a workload identity, and sends no request.
pub(super) fn credential(transport: &Transport, identity: &AzureIdentity) -> Result<Arc<dyn TokenCredential>, Failure> {
    if identity.token_file.is_some() {
        workload_identity(transport, identity)
    } else {
        managed_identity(transport, identity)
    }
}

fn workload_identity(transport: &Transport, identity: &AzureIdentity) -> Result<Arc<dyn TokenCredential>, Failure> {
    let AzureIdentity { client_id, tenant_id, token_file, .. } = identity;
    for (variable, value) in [("AZURE_CLIENT_ID", client_id), ("AZURE_TENANT_ID", tenant_id)] {
        if value.is_none() {
            return Err(Failure::incomplete_workload_identity(variable));
        }
    }
    let options = WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions {
            client_options: Connector::new(transport.clone(), Peer::Entra).into_options(),
        },
        client_id: client_id.clone(),
        tenant_id: tenant_id.clone(),
        token_file_path: token_file.clone(),
    };
    match WorkloadIdentityCredential::new(Some(options)) {
        Ok(credential) => Ok(credential),
        Err(error) => match error_chain::find::<io::Error>(&error) {
            Some(error) => Err(Failure::unreadable_token_file(error)),
            None => Err(Failure::invalid_workload_identity()),
        },
    }
}

fn managed_identity(transport: &Transport, identity: &AzureIdentity) -> Result<Arc<dyn TokenCredential>, Failure> {
    let connector = Connector::new(transport.clone(), Peer::ManagedIdentity).with_imds(identity.imds.clone());
    let options = ManagedIdentityCredentialOptions {
        user_assigned_id: identity.client_id.clone().map(UserAssignedId::ClientId),
        client_options: connector.into_options(),
    };
    let credential = ManagedIdentityCredential::new(Some(options)).map_err(|_| Failure::unsupported_identity())?;
    Ok(credential)
}
