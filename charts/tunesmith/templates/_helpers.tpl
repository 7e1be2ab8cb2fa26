{{/* Name of the objects of the operator. */}}
{{- define "tunesmith.name" -}}
{{ .Release.Name | trunc 54 | trimSuffix "-" }}-operator
{{- end }}

{{/* Labels that select the operator's pods. They never change. */}}
{{- define "tunesmith.selector" -}}
app.kubernetes.io/name: tunesmith
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "tunesmith.labels" -}}
{{ include "tunesmith.selector" . }}
app.kubernetes.io/part-of: tunesmith
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The operator's rights in the namespaces that it manages: exactly the requests that it makes. */}}
{{- define "tunesmith.rules" -}}
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs, evaljobs, inferenceservices]
  verbs: [get, list, watch]
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs/status, evaljobs/status, inferenceservices/status]
  verbs: [patch]
# Required by the admission plugin OwnerReferencesPermissionEnforcement for blockOwnerDeletion.
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs/finalizers, evaljobs/finalizers, inferenceservices/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
# The recorded versions of a service, for roll-backs.
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- if .Values.kueue.enabled }}
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- end }}
{{- end }}

{{/* The operator's configuration file. */}}
{{- define "tunesmith.config" -}}
images:
  runtime: {{ .Values.images.runtime | quote }}
  pullPolicy: {{ .Values.images.pullPolicy }}
  {{- with include "tunesmith.present" .Values.images.engines | fromYaml }}
  engines:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with include "tunesmith.accelerators" .Values.accelerators | fromYaml }}
accelerators:
  {{- toYaml . | nindent 2 }}
{{- end }}
store:
  {{- include "tunesmith.present" (omit .Values.store "caBundle") | nindent 2 }}
  {{- if .Values.store.caBundle.name }}
  caBundle:
    {{- toYaml .Values.store.caBundle | nindent 4 }}
  {{- end }}
hub:
  {{- include "tunesmith.present" .Values.hub | nindent 2 }}
progressUrl: http://{{ include "tunesmith.name" . }}.{{ .Release.Namespace }}.svc:8082/v1/progress
namespaces: {{ toJson .Values.scope.namespaces }}
workers: {{ .Values.workers }}
client:
  {{- toYaml .Values.client | nindent 2 }}
together:
  {{- toYaml .Values.together | nindent 2 }}
leaderElection:
  namespace: {{ .Release.Namespace | quote }}
  name: {{ include "tunesmith.name" . }}
  {{- toYaml .Values.leaderElection | nindent 2 }}
http:
  healthPort: 8080
  progressPort: 8082
kueue:
  enabled: {{ .Values.kueue.enabled }}
allowTrustRemoteCode: {{ .Values.allowTrustRemoteCode }}
{{- with include "tunesmith.present" .Values.cache | fromYaml }}
cache:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podPolicy }}
podPolicy:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The settings of the accelerators that have any, as YAML. */}}
{{- define "tunesmith.accelerators" -}}
{{- $configured := dict }}
{{- range $name, $settings := . }}
{{- $own := include "tunesmith.present" (omit $settings "engines" "groups" "env") | fromYaml }}
{{- with include "tunesmith.present" $settings.engines | fromYaml }}
{{- $_ := set $own "engines" . }}
{{- end }}
{{- if kindIs "slice" $settings.groups }}
{{- $_ := set $own "groups" $settings.groups }}
{{- end }}
{{- with $settings.env }}
{{- $_ := set $own "env" . }}
{{- end }}
{{- if $own }}
{{- $_ := set $configured $name $own }}
{{- end }}
{{- end }}
{{- toYaml $configured }}
{{- end }}

{{/* A map as YAML, without empty strings. */}}
{{- define "tunesmith.present" -}}
{{- $present := dict }}
{{- range $key, $value := . }}
{{- if not (and (kindIs "string" $value) (empty $value)) }}
{{- $_ := set $present $key $value }}
{{- end }}
{{- end }}
{{- toYaml $present }}
{{- end }}

{{/* Errors in the values of the cache, as messages that name the value. */}}
{{- define "tunesmith.checkCache" -}}
{{- with .Values.cache }}
{{- if and .hostPath .claim }}
{{- fail "cache.hostPath and cache.claim: set one of them" }}
{{- end }}
{{- if and .maxBytes (not (or .hostPath .claim)) }}
{{- fail "cache.maxBytes: set cache.hostPath or cache.claim too, or remove it" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Errors in the values of the store, as messages that name the value. */}}
{{- define "tunesmith.checkStore" -}}
{{- with .Values.store }}
{{- $bucket := regexFind "^s3://[^/]*" .uri }}
{{- if not (regexMatch "^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$" $bucket) }}
{{- fail "store.uri: write s3://bucket or s3://bucket/prefix, with a bucket that exists: 3 to 63 lower-case letters, digits, - and ." }}
{{- end }}
{{- if or (regexMatch "\\.\\.|\\.-|-\\.|^s3://[0-9]+(\\.[0-9]+){3}$" $bucket) (regexMatch "/\\.\\.?(/|$)|.{5}//|[\\pC\\pZ?#*\\\\<>{}^|\"`]|%[0-9A-Fa-f]{2}" .uri) }}
{{- fail "store.uri: write s3://bucket or s3://bucket/prefix without spaces, empty folders, . or .., %, ? and *" }}
{{- end }}
{{- if and .endpoint (not (regexMatch "^https?://([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\\.?|\\[[0-9A-Fa-f:.]+\\])(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?(/[^\\pC\\pZ?#*\\\\<>{}^|\"`]*)?$" .endpoint)) }}
{{- fail "store.endpoint: write the URL of the S3 API with http:// or https://, such as https://minio.storage.svc:9000, without credentials; leave it empty for AWS" }}
{{- end }}
{{- if and .credentialsSecret (not (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" .credentialsSecret)) }}
{{- fail "store.credentialsSecret: write the name of a Secret, in lower case" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Errors in the values of the hubs, as messages that name the value. */}}
{{- define "tunesmith.checkHub" -}}
{{- with .Values.hub }}
{{- range $name, $urls := .endpoints }}
{{- range $urls }}
{{- if not (regexMatch "^https?://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[^\\pC\\pZ?#@]*)?$" .) }}
{{- fail (printf "hub.endpoints.%s: write the URL of each server with http:// or https://, without credentials and query, such as https://huggingface.co" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .tokenSecret (not (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" .tokenSecret)) }}
{{- fail "hub.tokenSecret: write the name of a Secret, in lower case; its keys are HF_TOKEN and MODELSCOPE_API_TOKEN" }}
{{- end }}
{{- end }}
{{- end }}
