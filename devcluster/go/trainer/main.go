// The manager of Kubeflow Trainer, set up as its own main does with default settings, but for its certificate: out of a
// cluster there is no Service for which one could be made, and the webhooks are called by URL with the one in $TMPDIR.
package main

import (
	"flag"
	"log"

	apiruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	jobset "sigs.k8s.io/jobset/api/jobset/v1alpha2"
	podgroup "sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1"

	trainer "github.com/kubeflow/trainer/v2/pkg/apis/trainer/v1alpha1"
	controllers "github.com/kubeflow/trainer/v2/pkg/controller"
	"github.com/kubeflow/trainer/v2/pkg/runtime/core"
	"github.com/kubeflow/trainer/v2/pkg/webhooks"
)

func main() {
	port := flag.Int("webhook-server-port", 9443, "port of the webhooks")
	flag.Parse()
	ctrl.SetLogger(zap.New())

	scheme := apiruntime.NewScheme()
	for _, add := range []func(*apiruntime.Scheme) error{
		clientgoscheme.AddToScheme, trainer.AddToScheme, jobset.AddToScheme, podgroup.AddToScheme,
	} {
		must(add(scheme))
	}
	manager, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		Scheme:        scheme,
		Client:        client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		Metrics:       metricsserver.Options{BindAddress: "0"},
		WebhookServer: webhook.NewServer(webhook.Options{Port: *port}),
	})
	must(err)
	ctx := ctrl.SetupSignalHandler()
	runtimes, err := core.New(ctx, manager.GetClient(), manager.GetFieldIndexer())
	must(err)
	name, err := controllers.SetupControllers(manager, runtimes, controller.Options{})
	mustFor(name, err)
	name, err = webhooks.Setup(manager, runtimes)
	mustFor(name, err)
	must(manager.Start(ctx))
}

func must(err error) { mustFor("manager", err) }

func mustFor(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}
