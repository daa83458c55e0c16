{{- define "quotagate.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "quotagate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: quotagate
{{- end }}

{{- /* Of (root, component). */ -}}
{{- define "quotagate.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "quotagate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "quotagate.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- define "quotagate.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "quotagate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "quotagate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- /* gateway.yaml: what the chart decides, over the settings. */ -}}
{{- define "quotagate.gatewaySettings" -}}
{{- $listen := dict "host" "0.0.0.0" "port" 8080 -}}
{{- if .Values.gateway.tls.secret -}}
{{- $files := dict "cert_file" "/etc/quotagate-tls/tls.crt" "key_file" "/etc/quotagate-tls/tls.key" -}}
{{- $_ := set $listen "tls" (dict "certificates" (list $files)) -}}
{{- end -}}
{{- $of := dict "listen" $listen "workers" .Values.gateway.workers -}}
{{- $_ := set $of "management" (dict "host" "0.0.0.0" "port" 9464) -}}
{{- $_ := set $of "drain" (dict "stop_seconds" .Values.gateway.drain.stopSeconds "idle_seconds" .Values.gateway.drain.idleSeconds) -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.gateway.settings) $of) -}}
{{- end }}

{{- define "quotagate.controlSettings" -}}
{{- $of := dict "listen" (dict "host" "0.0.0.0" "port" 8081) -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.control.settings) $of) -}}
{{- end }}
