{{/* Names and labels. */}}
{{- define "session-aggregator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "session-aggregator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "session-aggregator.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "session-aggregator.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "session-aggregator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "session-aggregator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The worker's pods alone; the pod of `helm test` has another component, and no traffic must count on it. */}}
{{- define "session-aggregator.workerLabels" -}}
{{ include "session-aggregator.selectorLabels" . }}
app.kubernetes.io/component: worker
{{- end -}}

{{- define "session-aggregator.labels" -}}
{{ include "session-aggregator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "session-aggregator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "session-aggregator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "session-aggregator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* A setting's value as its variable has it: lists comma-separated, whole numbers without a point or an exponent. */}}
{{- define "session-aggregator.value" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* The variables with plain values. */}}
{{- define "session-aggregator.variables" -}}
{{- range $group, $fields := .Values.settings }}
{{- range $field, $value := $fields }}
{{- if not (dig $group $field "" $.Values.secretSettings) }}
AGGREGATOR_{{ upper $group }}__{{ upper $field }}: {{ include "session-aggregator.value" $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.tls.kafka }}
{{- if .secret }}
AGGREGATOR_KAFKA__SSL_CA_FILE: /etc/session-aggregator/tls/kafka/{{ .ca }}
{{- if .cert }}
AGGREGATOR_KAFKA__SSL_CERT_FILE: /etc/session-aggregator/tls/kafka/{{ .cert }}
AGGREGATOR_KAFKA__SSL_KEY_FILE: /etc/session-aggregator/tls/kafka/{{ .key }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What a container of the worker's image needs to do the worker's work. */}}
{{- define "session-aggregator.container" -}}
image: {{ include "session-aggregator.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
envFrom:
  - configMapRef:
      name: {{ include "session-aggregator.fullname" . }}
{{- if or .Values.secretSettings .Values.extraEnv }}
env:
  {{- range $group, $fields := .Values.secretSettings }}
  {{- range $field, $from := $fields }}
  - name: AGGREGATOR_{{ upper $group }}__{{ upper $field }}
    valueFrom:
      secretKeyRef:
        name: {{ $from.secret }}
        key: {{ $from.key }}
  {{- end }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- if or .Values.tls.kafka.secret .Values.tls.redis.secret .Values.extraVolumeMounts }}
volumeMounts:
  {{- range $name := list "kafka" "redis" }}
  {{- if (index $.Values.tls $name).secret }}
  - name: tls-{{ $name }}
    mountPath: /etc/session-aggregator/tls/{{ $name }}
    readOnly: true
  {{- end }}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "session-aggregator.volumes" -}}
{{- if or .Values.tls.kafka.secret .Values.tls.redis.secret .Values.extraVolumes }}
volumes:
  {{- range $name := list "kafka" "redis" }}
  {{- with (index $.Values.tls $name).secret }}
  - name: tls-{{ $name }}
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "session-aggregator.podSecurity" -}}
automountServiceAccountToken: false
serviceAccountName: {{ include "session-aggregator.serviceAccountName" . }}
# Else every Service of the namespace puts variables into the pod.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What the schema can't compare. */}}
{{- define "session-aggregator.check" -}}
{{- $partitions := int .Values.inputPartitions -}}
{{- $standby := "a worker more than there are partitions stands by idle; add partitions to the topic first" -}}
{{- if eq .Values.autoscaling.kind "none" -}}
{{- if gt (int .Values.replicas) $partitions -}}
{{- fail (printf "replicas is %d, but inputPartitions is %d: %s" (int .Values.replicas) $partitions $standby) -}}
{{- end -}}
{{- else -}}
{{- $most := int .Values.autoscaling.maxReplicas -}}
{{- if gt $most $partitions -}}
{{- fail (printf "autoscaling.maxReplicas is %d, but inputPartitions is %d: %s" $most $partitions $standby) -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) $most -}}
{{- fail (printf "autoscaling.minReplicas is %d, greater than autoscaling.maxReplicas, %d" (int .Values.autoscaling.minReplicas) $most) -}}
{{- end -}}
{{- end -}}
{{- if .Values.networkPolicy.enabled -}}
{{- range .Values.settings.kafka.bootstrap_servers -}}
{{- $port := int (regexFind "[0-9]+$" .) -}}
{{- $open := dict -}}
{{- range $.Values.networkPolicy.kafka.ports -}}{{- $_ := set $open (toString (int .)) true -}}{{- end -}}
{{- if not (hasKey $open (toString $port)) -}}
{{- fail (printf "settings.kafka.bootstrap_servers has %s, but networkPolicy.kafka.ports does not let the worker reach port %d: add it there" . $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with dig "redis" "url" "" .Values.settings -}}
{{- if or (regexMatch "://[^/]*:[^/]*@" .) (contains "password=" .) -}}
{{- fail "settings.redis.url holds a password: put the whole URL into a secret, and secretSettings.redis.url in its place" -}}
{{- end -}}
{{- if and $.Values.networkPolicy.enabled (not (hasPrefix "unix" .)) -}}
{{- $port := int (default "6379" (regexFind "[0-9]+$" (regexFind "^[a-z]+://[^/?]*" .))) -}}
{{- $open := dict -}}
{{- range $.Values.networkPolicy.redis.ports -}}{{- $_ := set $open (toString (int .)) true -}}{{- end -}}
{{- if not (hasKey $open (toString $port)) -}}
{{- fail (printf "settings.redis.url has port %d, but networkPolicy.redis.ports does not let the worker reach it: add it there" $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.strimzi.enabled (not .Values.strimzi.cluster) -}}
{{- fail "strimzi.cluster is missing: it is the name of the Kafka resource that the topics belong to" -}}
{{- end -}}
{{- end -}}
