# The demonstration's tables, its plan and its sites' configurations; sourced by deploy/quickstart and by the images of
# docker-compose.yml. Bash. Sets `table` (heart or wisconsin) and `sites`.

heart_sums='a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8  processed.cleveland.data
d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796  processed.hungarian.data
834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314  processed.switzerland.data
e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f  processed.va.data'
heart_source=https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease
heart_hospitals=(cleveland hungarian switzerland va)
wisconsin_sum=fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed

demo_fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Each hospital's rows under the name of a site: $sites, in the order of $heart_hospitals.
heart_given() { # folder with the four files, output folder
    local n
    for n in 0 1 2 3; do
        [ -r "$1/processed.${heart_hospitals[$n]}.data" ] || demo_fail "$1: found no processed.${heart_hospitals[$n]}.data"
        cp "$1/processed.${heart_hospitals[$n]}.data" "$2/${sites[$n]}.csv"
    done
}

heart_downloaded() { # output folder
    local hospital
    for hospital in "${heart_hospitals[@]}"; do
        curl -fsS --connect-timeout 5 --max-time 30 -o "$1/processed.$hospital.data" \
            "$heart_source/processed.$hospital.data" 2>/dev/null || return 1
    done
    (cd "$1" && sha256sum --quiet -c - <<<"$heart_sums") || demo_fail "the downloaded heart-disease files are not the known ones"
    heart_given "$1" "$1"
    rm "$1"/processed.*.data
}

# Its first line holds counts, the last column is 0 for malignant and 1 for benign.
wisconsin_unpacked() { # output folder
    local n
    (cd "$1" && apt-get -qq -o APT::Sandbox::User=root download python3-sklearn) ||
        demo_fail "neither the heart-disease files nor Debian's python3-sklearn package could be had; give the files' folder"
    dpkg-deb --fsys-tarfile "$1"/python3-sklearn_*.deb |
        tar -xO ./usr/lib/python3/dist-packages/sklearn/datasets/data/breast_cancer.csv >"$1/wisconsin.csv"
    rm "$1"/python3-sklearn_*.deb
    (cd "$1" && sha256sum --quiet -c - <<<"$wisconsin_sum  wisconsin.csv") ||
        demo_fail "the breast-cancer table of the package is not the known one"
    for n in 0 1 2 3; do
        awk -v n=$n 'NR > 1 && (NR - 2) % 4 == n' "$1/wisconsin.csv" >"$1/${sites[$n]}.csv"
    done
}

# Writes OUT/<site>.csv for each of four sites and says what they hold. Without names for the sites they are the hospitals of
# the heart-disease files, or north, east, south and west.
demo_tables() { # output folder, folder with the heart-disease files or "", names…
    local out=$1 given=$2
    shift 2
    sites=("$@")
    [ $# -gt 0 ] || sites=("${heart_hospitals[@]}")
    mkdir -p "$out"
    if [ -n "$given" ]; then
        table=heart
        heart_given "$given" "$out"
        echo "UCI Heart Disease, from $given"
    elif heart_downloaded "$out"; then
        table=heart
        echo "UCI Heart Disease (CC BY 4.0: Janosi, Steinbrunn, Pfisterer, Detrano, 1988), downloaded"
    else
        table=wisconsin
        [ $# -gt 0 ] || sites=(north east south west)
        wisconsin_unpacked "$out"
        echo "The heart-disease files are out of reach here. Instead: Breast Cancer Wisconsin (Diagnostic), 569 patients,"
        echo "from Debian's python3-sklearn package; row i goes to site i mod 4"
    fi
}

demo_columns() {
    if [ "$table" = heart ]; then
        echo '{age: "#0", sex: "#1", cp: "#2", trestbps: "#3", chol: "#4", fbs: "#5", restecg: "#6", thalach: "#7", exang: "#8", oldpeak: "#9", num: "#13"}'
    else
        printf '{'; for c in $(seq 0 29); do printf 'x%d: "#%d", ' "$c" "$c"; done; printf 'target: "#30"}\n'
    fi
}

demo_dataset() {
    if [ "$table" = heart ]; then
        cat <<YAML
  features: [age, sex, trestbps, chol, fbs, thalach, exang, oldpeak, {name: cp, levels: [2, 3, 4]}, {name: restecg, levels: [1, 2]}]
  label: {column: num, above: 0}
YAML
    else
        printf '  features: [x0'; for c in $(seq 1 29); do printf ', x%d' "$c"; done; printf ']\n'
        printf '  label: {column: target, positive: [0]}\n'
    fi
}

demo_plan() { # name, rounds
    cat <<YAML
plan: $1
federation: horizontal
sites: {invite: all, minimum: 4, approval: 5m, deadline: 10m}
dataset:
  name: $table-v1
  kind: table
$(demo_dataset)
  missing: drop
  standardize: federated
model: {kind: logistic_regression}
training: {rounds: $2, local_steps: 100, batch_size: 4, optimizer: {kind: sgd, learning_rate: 0.005}, loss: bce}
aggregation: {method: fedavg, weights: samples}
evaluation: {metrics: [auc, accuracy, brier, log_loss], standardize: [federated]}
retention: {updates: 2, models: [best, last]}
seed: 42
YAML
}

demo_site() { # site, address of the coordinator, path of the table, further lines of the policy, further data sets
    cat <<YAML
site: $1
coordinator: $2
threads: 1
datasets:
  $table-v1:
    table: $3
    has_header: false
    columns: $(demo_columns)
    missing: ["?"]
    split: {by: row, fractions: {train: 0.66, test: 0.34}}
${5:-}
policy:
  approve: [{dataset: $table-v1, model: [logistic_regression], rounds: {maximum: 1000}, sites: {minimum: 3}}]
  confinement: required
${4:-}
YAML
}
