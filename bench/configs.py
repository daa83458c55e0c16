"""How contestants and upstream are set up: the peers as well as they can be, the gateway as it is by default."""

NGINX = """
{modules}
worker_processes 1; worker_rlimit_nofile 20000; daemon off; pid {directory}/{name}.pid;
events {{ worker_connections 16384; }}
http {{
  keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 0; client_header_buffer_size 4k;
  proxy_max_temp_file_size 0; proxy_buffers 8 64k;
  client_body_temp_path {directory}/{name}-b; proxy_temp_path {directory}/{name}-p;
  fastcgi_temp_path {directory}/{name}-f; uwsgi_temp_path {directory}/{name}-u; scgi_temp_path {directory}/{name}-s;
  {http}
}}
"""
ANSWERING = """
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=16; default_type application/json;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {directory};
    location / {{ return 200 '{body}'; }}
    location /seen/ {{ return 200 '{body}';
      add_header X-Seen "$request_method $request_uri $content_length $http_traceparent $http_x_quota_org"; }}
    location /sized/ {{ rewrite ^/sized/([^/]+)/ /files/$1 last; }}
    location /files/ {{ error_page 405 =200 $uri; }} }}
"""
SIZES = {"16-kib": 16 * 1024, "1-mib": 1024 * 1024}
"""Of the answers below /sized/<name>/."""
BODY = '{"ok":true,"padding":"' + "x" * 64 + '"}'
PLAIN = """
  access_log {log} combined buffer=64k flush=100ms;
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection "";
      {directives}
    }} }}
"""
TLS = """
  ssl_certificate {certificate}; ssl_certificate_key {certificate}; ssl_protocols TLSv1.2 TLSv1.3;
"""
FRONT = """
  access_log {log} combined buffer=64k flush=100ms;
  upstream quotagate {{ server unix:{socket}; keepalive 256; keepalive_requests 1000000; }}
  server {{ listen 127.0.0.1:{port} ssl http2 backlog=4096;
    location / {{
      proxy_pass http://quotagate; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host; proxy_set_header Forwarded "";
      proxy_request_buffering off; proxy_buffering off; proxy_next_upstream off;
    }} }}
"""
BALANCER = """
  access_log off;
  upstream gateways {{ {servers} keepalive 1024; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://gateways; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
    }} }}
"""
LUA_MODULES = """
load_module modules/ndk_http_module.so;
load_module modules/ngx_http_lua_module.so;
"""
LUA = """
  log_format json escape=json '{{"time":"$time_iso8601","request_id":"$request_id","client":"$remote_addr",'
    '"org":"$quota_org","method":"$request_method","path":"$uri","status":$status,"bytes_in":$request_length,'
    '"bytes_out":$bytes_sent,"duration":$request_time,"upstream":"$upstream_header_time"}}';
  access_log {log} json buffer=64k flush=100ms;
  lua_package_path "{here}/peer/?.lua;;";
  init_by_lua_block {{
    require "resty.core"
    quota = require "quota"
    quota.setup {{
      secret = "{secret}", issuer = "{issuer}", redis_port = {redis_port}, sha = "{sha}", script_path = "{script}",
    }}
  }}
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{
      set $quota_org "";
      access_by_lua_block {{ quota.check() }}
      add_header X-Request-Id $request_id always;
      proxy_pass http://api; proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Quota-Org $quota_org;
      proxy_set_header X-Request-Id $request_id;
      proxy_set_header Via "1.1 peer";
    }} }}
"""
GATEWAY = """
redis: {{url: "{redis}", timeout_ms: 2000, budget_ms: 2000}}  # a machine that stalls ends no run
access_log: {{path: "{log}"}}
standby: false  # what is measured is the one child
auth: {auth}
upstreams: {{api: {{url: "http://127.0.0.1:{upstream}"}}}}
timeouts: {{idle_seconds: 600}}
routes:
  - {{path: /, upstream: api}}
  - {{path: /v1/chat, upstream: api, meters: {{api_calls: 1, tokens: 10}}}}
  - {{path: /healthz, upstream: api, exempt: true}}
"""
