// The services of a signature for the tests, on one free port of this machine: certificate authority, logs of both versions, authority of
// time, and the server that gives a job its identity token. Usage: node services.cjs DIRECTORY
//
// The keys, certificates and signatures are those of @sigstore/mock. Added here: the canonical entries that a real log makes (the package
// logs what it got), a log of version 2, requests for time in DER, faults by the first part of the path, and a list of the requests.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const path = require('path');
const pkijs = require('pkijs');
const mock = require('@sigstore/mock');

const directory = process.argv[2];
const seen = [];
const base64 = (bytes) => Buffer.from(bytes).toString('base64');
const sha256 = (bytes) => crypto.createHash('sha256').update(bytes).digest();
const canonical = (value) =>
    value && typeof value === 'object' && !Array.isArray(value)
        ? `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(',')}}`
        : Array.isArray(value)
          ? `[${value.map(canonical).join(',')}]`
          : JSON.stringify(value);

// A token whose signature nobody checks.
function token(claims) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    return `${part({ alg: 'RS256' })}.${part(claims)}.${Buffer.from('signature of the token').toString('base64url')}`;
}

async function main() {
    const pair = (curve) => crypto.generateKeyPairSync('ec', { namedCurve: curve });
    const logPair = pair('prime256v1');
    const ctPair = pair('prime256v1');
    const ct = await mock.initializeCTLog(ctPair);
    const ca = await mock.initializeCA(pair('secp384r1'), ct);
    const log = await mock.initializeTLog('http://log.test', logPair);
    const tsa = await mock.initializeTSA(pair('secp384r1'));
    // Whole seconds: the verifier takes no fractions, which DER allows here.
    tsa.getCurrentTime = () => new Date(Math.floor(Date.now() / 1000) * 1000);
    const fulcio = mock.fulcioHandler(ca).fn;

    // The entry as a log stores it.
    function stored(proposed) {
        if (proposed.kind !== 'dsse') return proposed;
        const { envelope, verifiers } = proposed.spec.proposedContent;
        const parsed = JSON.parse(envelope);
        const hash = (bytes) => ({ algorithm: 'sha256', value: sha256(bytes).toString('hex') });
        return {
            apiVersion: '0.0.1',
            kind: 'dsse',
            spec: {
                envelopeHash: hash(envelope),
                payloadHash: hash(Buffer.from(parsed.payload, 'base64')),
                signatures: parsed.signatures.map(({ sig }) => ({ signature: sig, verifier: verifiers[0] })),
            },
        };
    }

    function entryOfVersion2(text) {
        const { digest, signature } = JSON.parse(text).hashedRekordRequestV002;
        const body = Buffer.from(
            canonical({
                apiVersion: '0.0.2',
                kind: 'hashedrekord',
                spec: { hashedRekordV002: { data: { algorithm: 'SHA2_256', digest }, signature } },
            }),
        );
        const logID = sha256(log.publicKey);
        const proof = log.calculateInclusionProof({ body, logID, timestamp: Math.floor(Date.now() / 1000) });
        return {
            logIndex: '0',
            logId: { keyId: base64(logID) },
            kindVersion: { kind: 'hashedrekord', version: '0.0.2' },
            integratedTime: '0',
            canonicalizedBody: base64(body),
            inclusionProof: {
                logIndex: '0',
                treeSize: '1',
                rootHash: Buffer.from(proof.rootHash, 'hex').toString('base64'),
                hashes: [],
                checkpoint: { envelope: proof.checkpoint },
            },
        };
    }

    async function stamp(bytes) {
        const request = pkijs.TimeStampReq.fromBER(bytes);
        return tsa.timestamp({
            artifactHash: Buffer.from(request.messageImprint.hashedMessage.valueBlock.valueHexView),
            hashAlgorithmOID: request.messageImprint.hashAlgorithm.algorithmId,
            nonce: 1,
            policyOID: '1.3.6.1.4.1.57264.2',
            certReq: request.certReq,
        });
    }

    // Status and body for a request.
    async function answer(request, body) {
        const url = new URL(request.url, 'http://127.0.0.1');
        const [, fault] = url.pathname.split('/');
        const place = url.pathname.replace(/^\/(refuse|silent|empty|other|swapped|lost)\//, '/');
        if (fault === 'silent') return new Promise(() => {});
        if (fault === 'empty') return [201, '{}'];
        if (fault === 'refuse') {
            // Long enough to be shortened in a message, with the token where the cut may be.
            const { credentials } = JSON.parse(body);
            const quoted = credentials ? `There was an error processing ${credentials.oidcIdentityToken.repeat(9)}` : 'no more room';
            return [400, quoted];
        }
        if (place === '/token') {
            const given = request.headers.authorization === 'bearer token-of-the-job';
            if (!given || url.searchParams.get('audience') !== 'sigstore') return [401, 'not this job'];
            return [200, JSON.stringify({ value: token(JSON.parse(fs.readFileSync(path.join(directory, 'claims')))) })];
        }
        if (place === '/requests') return [200, JSON.stringify(seen.filter((line) => !line.includes('/requests')))];
        if (place === '/api/v2/signingCert') {
            const asked = JSON.parse(body);
            if (fault === 'other') {
                const claims = JSON.parse(Buffer.from(asked.credentials.oidcIdentityToken.split('.')[1], 'base64url'));
                asked.credentials.oidcIdentityToken = token({ ...claims, sub: 'https://git.test/somebody/else' });
            }
            if (fault === 'swapped') {
                const { publicKey } = pair('prime256v1');
                asked.publicKeyRequest.publicKey.content = publicKey.export({ format: 'pem', type: 'spki' });
            }
            const made = await fulcio(JSON.stringify(asked));
            return [made.statusCode, made.response];
        }
        if (place === '/api/v1/log/entries') {
            const made = await log.log(stored(JSON.parse(body)));
            if (fault !== 'lost') return [201, JSON.stringify(made)];
            // The entry was made by an earlier request, whose answer was lost.
            const [name] = Object.keys(made);
            earlier.set(name, made);
            return [409, 'An equivalent entry already exists', { Location: `/lost/api/v1/log/entries/${name}` }];
        }
        const name = place.replace('/api/v1/log/entries/', '');
        if (earlier.has(name)) return [200, JSON.stringify(earlier.get(name))];
        if (place === '/api/v2/log/entries') return [201, JSON.stringify(entryOfVersion2(body))];
        if (place === '/api/v1/timestamp') return [201, await stamp(body)];
        return [404, 'no such place'];
    }
    const earlier = new Map();

    const server = http.createServer((request, response) => {
        const parts = [];
        request.on('data', (part) => parts.push(part));
        request.on('end', async () => {
            seen.push(`${request.method} ${request.url}`);
            let made;
            try {
                made = await answer(request, Buffer.concat(parts));
            } catch (error) {
                made = [500, String(error)];
            }
            response.writeHead(made[0], made[2] ?? {});
            response.end(made[1]);
        });
    });
    server.listen(0, '127.0.0.1', () => {
        const start = new Date(Date.now() - 60_000).toISOString();
        const validFor = { start };
        const chain = (...certificates) => ({ certificates: certificates.map((bytes) => ({ rawBytes: base64(bytes) })) });
        const key = (bytes) => ({ rawBytes: base64(bytes), keyDetails: 'PKIX_ECDSA_P256_SHA_256', validFor });
        const place = (bytes) => ({
            baseUrl: 'http://log.test',
            hashAlgorithm: 'SHA2_256',
            publicKey: key(bytes),
            logId: { keyId: base64(sha256(bytes)) },
        });
        const root = {
            mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
            tlogs: [place(log.publicKey)],
            certificateAuthorities: [
                {
                    subject: { organization: 'sigstore.mock', commonName: 'sigstore' },
                    uri: 'http://ca.test',
                    certChain: chain(ca.rootCertificate),
                    validFor,
                },
            ],
            ctlogs: [place(ctPair.publicKey.export({ format: 'der', type: 'spki' }))],
            timestampAuthorities: [
                {
                    subject: { organization: 'sigstore.mock', commonName: 'tsa' },
                    uri: 'http://time.test',
                    certChain: chain(tsa.intCertificate, tsa.rootCertificate),
                    validFor,
                },
            ],
        };
        fs.writeFileSync(path.join(directory, 'trusted_root.json'), JSON.stringify(root, null, 2));
        fs.writeFileSync(path.join(directory, 'port'), String(server.address().port));
        console.log('ready');
    });
    // The tests hold the other end, so that it closes when they end, in whatever way.
    process.stdin.on('end', () => process.exit(0)).resume();
}

main();
