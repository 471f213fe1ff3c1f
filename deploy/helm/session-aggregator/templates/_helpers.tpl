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

{{/* The variables with plain values: of `settings`, those that `secrets` does not have. */}}
{{- define "session-aggregator.plain" -}}
{{- range $group, $fields := .settings }}
{{- range $field, $value := $fields }}
{{- if not (or (dig $group $field "" $.secrets) (and (eq $group "kafka") (eq $field "topics") (hasKey $fields "topic_pattern"))) }}
AGGREGATOR_{{ upper $group }}__{{ upper $field }}: {{ include "session-aggregator.value" $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Those of the worker. */}}
{{- define "session-aggregator.variables" -}}
{{- include "session-aggregator.plain" (dict "settings" (omit .Values.settings "web") "secrets" .Values.secretSettings) }}
{{- if and .Values.tls.kafka.secret (not (hasSuffix "SSL" (default "PLAINTEXT" .Values.settings.kafka.security_protocol))) }}
{{- fail "tls.kafka.secret takes settings.kafka.security_protocol SSL or SASL_SSL; nothing would be encrypted" }}
{{- end }}
{{- if and .Values.tls.redis.secret (not (dig "redis" "url" "" .Values.secretSettings)) (not (hasPrefix "rediss" .Values.settings.redis.url)) }}
{{- fail "tls.redis.secret takes a settings.redis.url that begins with rediss:// or rediss+sentinel://; nothing would be encrypted" }}
{{- end }}
{{- include "session-aggregator.certificates" (dict "tls" .Values.tls "names" (list "kafka" "redis")) }}
{{- end -}}

{{/* Where the certificates of `tls` are mounted, for the servers of these names. */}}
{{- define "session-aggregator.certificates" -}}
{{- range $name := .names }}
{{- with index $.tls $name }}
{{- if .secret }}
AGGREGATOR_{{ upper $name }}__SSL_CA_FILE: /etc/session-aggregator/tls/{{ $name }}/{{ .ca }}
{{- if .cert }}
AGGREGATOR_{{ upper $name }}__SSL_CERT_FILE: /etc/session-aggregator/tls/{{ $name }}/{{ .cert }}
AGGREGATOR_{{ upper $name }}__SSL_KEY_FILE: /etc/session-aggregator/tls/{{ $name }}/{{ .key }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The secrets of the web view: where it has a Redis or a user of its own, it does not have those of the worker's. */}}
{{- define "session-aggregator.webSecrets" -}}
{{- $redis := default dict .Values.secretSettings.redis -}}
{{- $own := default dict .Values.web.secretSettings.redis -}}
{{- $plain := default dict .Values.web.settings.redis -}}
{{- if hasKey $plain "url" -}}
{{- $redis = $own -}}
{{- else if or $own (hasKey $plain "username") -}}
{{- $redis = merge (dict) $own (pick $redis "url") -}}
{{- end -}}
{{- merge (pick .Values.secretSettings "web") (ternary (dict "redis" $redis) dict (not (empty $redis))) | toYaml -}}
{{- end -}}

{{/* The variables of the web view; it is reached from outside its pod. */}}
{{- define "session-aggregator.webVariables" -}}
{{- $settings := mergeOverwrite (deepCopy (pick .Values.settings "log" "redis" "session" "web")) (deepCopy .Values.web.settings) -}}
{{- $secrets := include "session-aggregator.webSecrets" . | fromYaml -}}
{{- include "session-aggregator.plain" (dict "settings" $settings "secrets" $secrets) }}
{{- include "session-aggregator.certificates" (dict "tls" .Values.tls "names" (list "redis")) }}
AGGREGATOR_WEB__HOST: 0.0.0.0
{{- end -}}

{{/* A container of the image: `root`, `configMap`, `secrets` as secretSettings, `tls` whose certificates it needs. */}}
{{- define "session-aggregator.container" -}}
{{- $values := .root.Values -}}
image: {{ include "session-aggregator.image" .root }}
imagePullPolicy: {{ $values.image.pullPolicy }}
envFrom:
  - configMapRef:
      name: {{ .configMap }}
{{- if or .secrets $values.extraEnv }}
env:
  {{- range $group, $fields := .secrets }}
  {{- range $field, $from := $fields }}
  - name: AGGREGATOR_{{ upper $group }}__{{ upper $field }}
    valueFrom:
      secretKeyRef:
        name: {{ $from.secret }}
        key: {{ $from.key }}
  {{- end }}
  {{- end }}
  {{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- $mounts := include "session-aggregator.mounts" . }}
{{- if or $mounts $values.extraVolumeMounts }}
volumeMounts:
  {{- $mounts | nindent 2 }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Secrets are mounted as folders, never as single files: then a rotated one appears by itself. */}}
{{- define "session-aggregator.mounts" -}}
{{- range $name := .tls }}
{{- if (index $.root.Values.tls $name).secret }}
- name: tls-{{ $name }}
  mountPath: /etc/session-aggregator/tls/{{ $name }}
  readOnly: true
{{- end }}
{{- end }}
{{- range $name, $_ := .root.Values.secretFiles }}
- name: secrets-{{ $name }}
  mountPath: /etc/session-aggregator/secrets/{{ $name }}
  readOnly: true
{{- end }}
{{- end -}}

{{- define "session-aggregator.volumes" -}}
{{- $names := dict }}
{{- range $name := .tls }}
{{- with (index $.root.Values.tls $name).secret }}{{- $_ := set $names (printf "tls-%s" $name) . }}{{- end }}
{{- end }}
{{- range $name, $secret := .root.Values.secretFiles }}
{{- $_ := set $names (printf "secrets-%s" $name) $secret }}
{{- end }}
{{- if or $names .root.Values.extraVolumes }}
volumes:
  {{- range $name, $secret := $names }}
  - name: {{ $name }}
    secret:
      secretName: {{ $secret }}
      defaultMode: 0440
  {{- end }}
  {{- with .root.Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The worker's container, as the pod of `helm test` has it too. */}}
{{- define "session-aggregator.workerParts" -}}
{{- dict "configMap" (include "session-aggregator.fullname" .) "secrets" (omit .Values.secretSettings "web") "tls" (list "kafka" "redis") | toYaml -}}
{{- end -}}

{{/* Where pods of a component run: `root`, `component`. */}}
{{- define "session-aggregator.placement" -}}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
{{- if .root.Values.topologySpreadConstraints }}
  {{- toYaml .root.Values.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "session-aggregator.selectorLabels" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.component }}
    matchLabelKeys: [pod-template-hash]
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

{{/* What pods may reach: names, and `places` on their ports. */}}
{{- define "session-aggregator.egress" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
  {{- with .root.Values.networkPolicy.dns.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- range .places }}
- ports:
    {{- range .ports }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
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
{{- range $place, $settings := dict "settings" .Values.settings "web.settings" .Values.web.settings -}}
{{- with dig "redis" "url" "" $settings -}}
{{- if or (regexMatch "://[^/]*:[^/]*@" .) (contains "password=" .) -}}
{{- $secrets := replace "settings" "secretSettings" $place -}}
{{- fail (printf "%s.redis.url holds a password: put the whole URL into a secret, and %s.redis.url in its place" $place $secrets) -}}
{{- end -}}
{{- if and $.Values.networkPolicy.enabled (not (hasPrefix "unix" .)) -}}
{{- $port := int (default "6379" (regexFind "[0-9]+$" (regexFind "^[a-z]+://[^/?]*" .))) -}}
{{- $open := dict -}}
{{- range $.Values.networkPolicy.redis.ports -}}{{- $_ := set $open (toString (int .)) true -}}{{- end -}}
{{- if not (hasKey $open (toString $port)) -}}
{{- fail (printf "%s.redis.url has port %d, but networkPolicy.redis.ports does not let the pods reach it: add it there" $place $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.web.enabled -}}
{{- if dig "web" "user_header" "" .Values.settings -}}
{{- if not (and .Values.networkPolicy.enabled .Values.web.from) -}}
{{- fail "settings.web.user_header lets whoever reaches the web view name any user: set networkPolicy.enabled and, in web.from, the proxy alone" -}}
{{- end -}}
{{- else if not (dig "web" "tokens" "" .Values.secretSettings) -}}
{{- fail "web.enabled needs to know who may look: set secretSettings.web.tokens, or settings.web.user_header behind a proxy that logs users in" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.strimzi.enabled (hasKey .Values.settings.kafka "topic_pattern") -}}
{{- fail "strimzi.enabled makes the topics that settings.kafka.topics names, and settings.kafka.topic_pattern names none" -}}
{{- end -}}
{{- if and .Values.strimzi.enabled (not .Values.strimzi.cluster) -}}
{{- fail "strimzi.cluster is missing: it is the name of the Kafka resource that the topics belong to" -}}
{{- end -}}
{{- end -}}
